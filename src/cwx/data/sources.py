"""Where labelled images come from: each source yields train and test sets as byte tensors."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True)
class ImageSet:
    """Images ``[n, C, H, W]`` as bytes in 0-255 and labels ``[n]`` as int64 class indices."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ImageSet":
        return ImageSet(self.images.to(device), self.labels.to(device))

    def first(self, per_class: int) -> "ImageSet":
        """At most `per_class` images of each class, the first of them, in their order."""
        chosen = [(self.labels == c).nonzero()[:per_class, 0] for c in self.labels.unique()]
        indices = torch.cat(chosen).sort().values
        return ImageSet(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Splits:
    """A data set: its train and test images and the name of each class by index."""

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]


class Source(Protocol):
    def prepare(self) -> None:
        """Download what is missing; called by one process a machine."""

    def load(self) -> Splits:
        """Read both splits into memory.

        Raises:
            ValueError: the data are missing or unfit, with the remedy.
        """


class Digits:
    """scikit-learn's 1,797 handwritten digits, one channel of 8x8, bundled with that package.

    The split is fixed: within each class, every fifth digit in the published order is a test
    image (355), the others are training images (1,442).
    """

    def prepare(self) -> None:
        return

    def load(self) -> Splits:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        # The published levels are 0-16.
        images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(bunch.target).long()
        order = torch.stack([(labels[: i + 1] == labels[i]).sum() for i in range(len(labels))])
        test = order % 5 == 0
        return Splits(
            ImageSet(images[~test], labels[~test]),
            ImageSet(images[test], labels[test]),
            tuple(str(digit) for digit in range(10)),
        )


class Torchvision:
    """A torchvision data set that takes ``root, train, download`` and has ``data``, ``targets``.

    Args:
        dataset: the class, such as ``torchvision.datasets.CIFAR10``.
        root: where it lies or is downloaded to.
        download: whether a missing set is fetched.
    """

    def __init__(self, *, dataset: Callable[..., Any], root: str, download: bool) -> None:
        self.dataset, self.root, self.download = dataset, Path(root), download

    def prepare(self) -> None:
        if self.download:
            for train in (True, False):
                self._open(train=train, download=True)

    def load(self) -> Splits:
        train, test = (self._open(train=train, download=False) for train in (True, False))
        return Splits(_from_torchvision(train), _from_torchvision(test), tuple(train.classes))

    def _open(self, *, train: bool, download: bool) -> Any:
        try:
            return self.dataset(root=self.root, train=train, download=download)
        except (OSError, RuntimeError) as error:
            name = getattr(self.dataset, "__name__", str(self.dataset))
            raise ValueError(
                f"{name} is not in {self.root} and could not be fetched ({error}): place it there, "
                "set data.source.download=true with a connection, or use data=image_folder"
            ) from error


def _from_torchvision(dataset: Any) -> ImageSet:
    images = torch.as_tensor(np.asarray(dataset.data))
    # Grey sets come as [n, H, W], colour sets with the channels last.
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
    return ImageSet(images.contiguous(), torch.as_tensor(dataset.targets).long())


class ImageFolder:
    """The user's own images: ``<root>/train/<class>/*`` and ``<root>/test/<class>/*``.

    Class indices follow the sorted names of the training folders.

    Args:
        root: the folder that holds ``train`` and ``test``.
        size: side in pixels to which every image is resized and centre-cropped; ``None`` to
            take them as they are, all of one size.
        channels: 1 for grey, 3 for colour; ``None`` for grey if every image is grey.
    """

    def __init__(
        self,
        *,
        root: str,
        size: int | None,
        channels: int | None,
    ) -> None:
        self.root, self.size, self.channels = Path(root), size, channels
        if channels not in (None, 1, 3):
            raise ValueError(f"data.source.channels is {channels}: give 1, 3 or null")

    def prepare(self) -> None:
        return

    def load(self) -> Splits:
        train, test = (
            _class_files(self.root / "train"),
            _class_files(self.root / "test"),
        )
        classes = tuple(sorted(train))
        if len(classes) < 2:
            raise ValueError(
                f"{self.root / 'train'} has one class, {classes[0]!r}: a classifier needs two "
                "folders or more"
            )
        if unknown := sorted(set(test) - set(train)):
            raise ValueError(
                f"{self.root / 'test'} has classes that train lacks: {', '.join(unknown)}; "
                "remove them or add their training images"
            )
        channels = self.channels or self._common_channels([train, test])
        read = _Reader(size=self.size, channels=channels)
        return Splits(read.split(train, classes), read.split(test, classes), classes)

    def _common_channels(self, splits: Sequence[dict[str, list[Path]]]) -> int:
        files = (file for split in splits for names in split.values() for file in names)
        return (
            1 if all(_open(file, lambda i: i.mode in ("1", "L", "I;16")) for file in files) else 3
        )


def _class_files(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {folder}: set data.source.root to a folder with "
            "train/<class>/ and test/<class>/"
        )
    names = {path.name: path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."}
    if not names:
        raise ValueError(f"{folder} is empty: it needs a folder of images a class")
    found = {name: _image_files(path) for name, path in names.items()}
    for name, files in found.items():
        if not files:
            raise ValueError(f"{names[name]} has no images: add some or remove the folder")
    return found


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


T = TypeVar("T")


def _open(file: Path, use: Callable[[Image.Image], T]) -> T:
    try:
        with warnings.catch_warnings():
            # A picture large enough to be a decompression bomb is refused, not read.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                return use(image)
    except (
        OSError,
        SyntaxError,
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise ValueError(
            f"{file} cannot be read as an image ({error}): replace or remove it"
        ) from error


class _Reader:
    def __init__(self, *, size: int | None, channels: int) -> None:
        self.size, self.mode = size, "L" if channels == 1 else "RGB"
        self.first: tuple[Path, tuple[int, int]] | None = None

    def split(self, files: dict[str, list[Path]], classes: Sequence[str]) -> ImageSet:
        pairs = [
            (file, label) for label, name in enumerate(classes) for file in files.get(name, [])
        ]
        images = torch.stack([self._image(file) for file, _ in pairs])
        return ImageSet(images, torch.tensor([label for _, label in pairs]))

    def _image(self, file: Path) -> Tensor:
        picture = _open(file, self._decode)
        if self.first is None:
            self.first = file, picture.size
        if picture.size != self.first[1]:
            (width, height), (first, (first_width, first_height)) = (
                picture.size,
                self.first,
            )
            raise ValueError(
                f"images differ in size: {first} is {first_width}x{first_height}, {file} is "
                f"{width}x{height}; set data.source.size to resize them"
            )
        array = np.asarray(picture)
        return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).copy())

    def _decode(self, image: Image.Image) -> Image.Image:
        image = image.convert(self.mode)
        if self.size is None:
            return image
        scale = self.size / min(image.size)
        width, height = (max(self.size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return image.crop((left, top, left + self.size, top + self.size))
