"""Data sets that torchvision downloads and decodes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from cwx.data.splits import ImageSet, Splits, synsets_by_index
from cwx.functional.class_names import ClassName
from cwx.storage.regular_files import check_regular


class Torchvision:
    """A torchvision data set with arguments ``root, train, download`` and ``data``, ``targets``.

    Args:
        dataset: the data set's class, such as ``torchvision.datasets.CIFAR10``.
        root: the folder of the data set, and of the download.
        download: whether to download a missing data set.
        synsets: the WordNet 3.0 noun id of each class, by class name; ``None`` for none.
    """

    def __init__(
        self,
        *,
        dataset: Callable[..., Any],
        root: str,
        download: bool,
        synsets: Mapping[ClassName, str] | None,
    ) -> None:
        self.dataset, self.root, self.download = dataset, Path(root), download
        self.synsets = synsets

    def prepare(self) -> None:
        if self.download:
            for train in (True, False):
                self._open(train=train, download=True)

    def load(self) -> Splits:
        train, test = (self._open(train=train, download=False) for train in (True, False))
        classes = tuple(train.classes)
        synsets = synsets_by_index(self.synsets, classes)
        return Splits(self._images(train), self._images(test), classes, synsets)

    def _open(self, *, train: bool, download: bool) -> Any:
        name = getattr(self.dataset, "__name__", str(self.dataset))
        _check_files(self.root, _parts(self.dataset))
        return _open_dataset(
            lambda: self.dataset(root=self.root, train=train, download=download),
            f"{name} is not in {self.root}",
            "place it there",
        )

    @staticmethod
    def _images(dataset: Any) -> ImageSet:
        images = torch.as_tensor(np.asarray(dataset.data))
        # Grey sets come as [n, H, W], colour sets with the channels last.
        images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
        return _image_set(images, dataset.targets)


class SVHN:
    """SVHN's cropped digits: 73,257 training and 26,032 test images, 3x32x32, by torchvision.

    Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011.
    The published files label the digit 0 as 10; torchvision maps it to 0.

    Args:
        root: the folder of ``train_32x32.mat`` and ``test_32x32.mat``.
        download: whether to download missing files.
    """

    def __init__(self, *, root: str, download: bool) -> None:
        self.root, self.download = Path(root), download

    def prepare(self) -> None:
        if self.download:
            for split in ("train", "test"):
                self._open(split, download=True)

    def load(self) -> Splits:
        train, test = (self._open(split, download=False) for split in ("train", "test"))
        return Splits(
            # Already [n, C, H, W], unlike the other data sets of torchvision.
            _image_set(torch.as_tensor(train.data), train.labels),
            _image_set(torch.as_tensor(test.data), test.labels),
            tuple(str(digit) for digit in range(10)),
        )

    def _open(self, split: str, *, download: bool) -> Any:
        _check_files(self.root, (f"{split}_32x32.mat",))
        return _open_dataset(
            lambda: datasets.SVHN(root=self.root, split=split, download=download),
            f"SVHN's {split} split is missing or damaged in {self.root}",
            f"place http://ufldl.stanford.edu/housenumbers/{split}_32x32.mat there",
        )


def _parts(dataset: Any) -> Sequence[str]:
    """Where a data set of torchvision keeps its files within the root, besides archives."""
    # Those of MNIST's kind are in a folder of the class's name.
    folder = getattr(dataset, "base_folder", None) or f"{getattr(dataset, '__name__', '')}/raw"
    return (str(folder), str(getattr(dataset, "filename", "")))


def _check_files(root: Path, parts: Sequence[str]) -> None:
    """Refuse named pipes, devices and sockets in place of files: torchvision would wait for them.

    Args:
        parts: files, or folders whose files are checked.
    """
    for path in (root / part for part in parts if part):
        try:
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                if not file.is_dir() and file.exists():
                    check_regular(file)
        except OSError as error:
            raise ValueError(
                f"{error.filename} cannot be read ({error.strerror}): remove it, and set "
                "data.source.download=true"
            ) from error


def _open_dataset(constructor: Callable[[], Any], missing: str, remedy: str) -> Any:
    try:
        return constructor()
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{missing} and could not be fetched ({error}): {remedy}, set "
            "data.source.download=true with a connection, or use data=image_folder"
        ) from error


def _image_set(images: Tensor, labels: Any) -> ImageSet:
    return ImageSet(images.contiguous(), torch.as_tensor(labels).long())
