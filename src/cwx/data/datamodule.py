"""The LightningDataModule of the images of a study."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cwx.data.batches import Batch, ResidentBatches, StreamedBatches, check_crops, normalised
from cwx.data.corruption import Corruption, CorruptionResult, NoCorruption, check_result
from cwx.data.corruption_changes import Changes
from cwx.data.file_splits import load_splits
from cwx.data.free_memory import release_freed_memory
from cwx.data.global_batches import GlobalBatches
from cwx.data.limits import limited
from cwx.data.random_crops import RandomCrops
from cwx.data.resumable_loader import ResumableLoader
from cwx.data.splits import ImageSet, Source, Splits
from cwx.data.step_loaders import rank_and_world_size
from cwx.data.storage import Storage
from cwx.data.streamed_images import StreamedImages, strided_batches
from cwx.data.worker_loader import WorkerLoader
from cwx.functional.images import Normalization


class ImageData(L.LightningDataModule):
    """Training and test images; batches lie on the device of an attached trainer.

    The images are in memory, or are decoded from files when they are needed (`Storage`). Batches
    and results are the same in both cases.

    A global training batch is divided among the ranks, so that the batches do not depend on the
    number of processes. Their order depends on the seed and the epoch only. Several networks may
    train in parallel, each with its own seed and order.

    Args:
        source: loads the images.
        mean, std: of the normalisation, for pixels in 0-1: one number, or one per channel.
        batch_size: images per forward pass in evaluation.
        per_class: use only the first `per_class` training images of each class; ``None`` for all.
        total: use at most so many training images of all classes together: the largest equal
            number per class that fits, the first ones of each; ``None`` for all.
        storage, memory_share, workers, on_error, manifests: see `cwx.data.storage.Storage`; other
            than ``memory`` and ``stop`` for sources of image files only.
        random_crops: of training images that are decoded from disk; ``None`` for none.

    Attributes:
        clean: the training images before any corruption; set by `setup`.
        corrupted: the result of the corruption; its images are trained on, unless `train_on`
            replaced them.
        changes: what the corruption changed.
    """

    clean: ImageSet
    changes: Changes
    corrupted: CorruptionResult

    def __init__(
        self,
        *,
        source: Source,
        mean: Annotated[float, ">= 0, <= 1"] | list[Annotated[float, ">= 0, <= 1"]],
        std: Annotated[float, ">= 0.001, <= 1"] | list[Annotated[float, ">= 0.001, <= 1"]],
        batch_size: Annotated[int, ">= 1"],
        per_class: Annotated[int, ">= 1"] | None,
        total: Annotated[int, ">= 1"] | None = None,
        storage: Literal["memory", "disk", "auto"] = "memory",
        memory_share: Annotated[float, "> 0, <= 1"] = 0.3,
        workers: Annotated[int, ">= 0, <= 256"] | None = 0,
        on_error: Literal["stop", "skip"] = "stop",
        manifests: str = "",
        random_crops: RandomCrops | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size is {batch_size}: give 1 or more")
        if per_class is not None and per_class < 1:
            raise ValueError(f"data.per_class is {per_class}: give 1 or more, or null for all")
        if total is not None and total < 1:
            raise ValueError(f"data.total is {total}: give 1 or more, or null for all")
        self.source, self.batch_size = source, batch_size
        self.per_class, self.total = per_class, total
        self._mean, self._std = mean, std
        self.random_crops = random_crops or RandomCrops()
        self.storage = Storage(
            kind=storage,
            memory_share=memory_share,
            workers=workers,
            on_error=on_error,
            manifests=manifests,
        )
        self._order: tuple[int, tuple[int, ...]] | None = None
        self._splits: Splits | None = None

    def prepare_data(self) -> None:
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        if self._splits is None:
            splits = load_splits(self.source, self.storage)
            splits.check()
            splits = replace(splits, train=limited(splits.train, self.per_class, self.total))
            self._splits, self.clean = splits, splits.train
            self.corrupt(NoCorruption())
            self.normalization = self._normalization()
            release_freed_memory()

    def corrupt(self, corruption: Corruption) -> CorruptionResult:
        """Corrupt the clean training images and train on the result; test images stay clean.

        Raises:
            ValueError: the corruption does not fit these images.
        """
        result = corruption(self.clean, self.classes)
        self.changes = check_result(result, self.clean, self.classes)
        check_crops(self.random_crops, result.images)
        self.corrupted = result
        self._splits = replace(self.splits, train=self.corrupted.images)
        return self.corrupted

    def train_on(self, images: ImageSet) -> None:
        """Train on `images` instead of the corrupted ones; test images do not change.

        Raises:
            ValueError: the size or the class indices of `images` do not fit the test images.
        """
        expected, actual = self.splits.test.images.shape[1:], images.images.shape[1:]
        if expected != actual:
            raise ValueError(
                f"the new training images are {_format_size(actual)}, but the test images are "
                f"{_format_size(expected)}: choose the data that they were constructed from"
            )
        if ((images.labels < 0) | (images.labels >= len(self.classes))).any():
            raise ValueError(
                f"the new training images have labels in {int(images.labels.min())}-"
                f"{int(images.labels.max())}, but there are {len(self.classes)} classes: choose "
                "the data that they were constructed from"
            )
        check_crops(self.random_crops, images)
        self._splits = replace(self.splits, train=images)

    def without(self, dropped: Tensor) -> Self:
        """A view without the training images where the boolean mask `dropped` ``[n]`` is True."""
        return self._view_of(self.splits.train.at(~dropped))

    def training_view(self, train: ImageSet) -> Self:
        """A view that trains on other images, of the same size and classes."""
        return self._view_of(train)

    def uncorrupted(self) -> Self:
        """A view that trains on the clean images."""
        return self._view_of(self.clean)

    def _view_of(self, train: ImageSet) -> Self:
        check_crops(self.random_crops, train)
        view = copy.copy(self)
        view._splits = replace(self.splits, train=train)
        view.trainer = None
        return view

    def _normalization(self) -> Normalization:
        channels = self.image_shape[0]
        mean, std = (
            [value] * channels if isinstance(value, int | float) else list(value)
            for value in (self._mean, self._std)
        )
        if len(mean) != channels or len(std) != channels:
            raise ValueError(
                f"data.mean and data.std have {len(mean)} and {len(std)} values for images of "
                f"{channels} channels: give one number or {channels}"
            )
        return Normalization(mean=mean, std=std)

    @property
    def splits(self) -> Splits:
        """Both splits as bytes; the training images as they are trained on.

        Raises:
            RuntimeError: `setup` was not called.
        """
        if self._splits is None:
            raise RuntimeError("the data are not loaded: call setup() first")
        return self._splits

    @property
    def classes(self) -> tuple[str, ...]:
        return self.splits.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.splits.train.images.shape[1:]
        return channels, height, width

    def fingerprint(self) -> str:
        """A digest of the training images, labels, classes and normalisation.

        Studies on the same images share experts, wherever the image files lie.
        """
        digest = self._digest(self.splits.train)
        if not self.random_crops.is_active:
            return digest
        # Networks that are trained on other parts of the same images are others.
        return hashlib.sha256(repr((digest, self.random_crops)).encode()).hexdigest()

    def test_fingerprint(self) -> str:
        """The same digest, of the test images."""
        return self._digest(self.splits.test)

    def _digest(self, images: ImageSet) -> str:
        pixels = images.images
        digest = hashlib.sha256(repr((pixels.shape, self.classes, self.normalization)).encode())
        if isinstance(pixels, StreamedImages):
            digest.update(pixels.identity().encode())
        else:
            digest.update(_memory(pixels))
        digest.update(_memory(images.labels))
        return digest.hexdigest()

    def batches(self, *, size: int, seeds: Sequence[int]) -> Self:
        """A view of the same images whose training loader yields shuffled batches of `size`.

        Each step yields a list of batches, one per seed.
        """
        if size < 1:
            raise ValueError(f"the batch size is {size}: give 1 or more")
        view = copy.copy(self)
        view._order = (size, tuple(seeds))
        view.trainer = None
        return view

    def train_dataloader(self) -> DataLoader[list[Batch]]:
        if self._order is None:
            raise RuntimeError("training needs a batch size and seeds: call data.batches(...)")
        size, seeds = self._order
        rank, ranks = rank_and_world_size(self)
        train = self.splits.train
        streamed = isinstance(train.images, StreamedImages)
        images = train if streamed else self._on_device(train)
        sampler = GlobalBatches(
            len(images),
            size=size,
            seeds=seeds,
            rank=rank,
            ranks=ranks,
            device=images.images.device,
        )
        if isinstance(images.images, StreamedImages):
            return WorkerLoader(
                StreamedBatches(images.images, images.labels, self.random_crops, seeds),
                sampler.with_epoch(),
                workers=images.images.files.workers,
                training=True,
                pin=self._device.type == "cuda",
            )
        batches = ResidentBatches(images, self.normalization)
        return ResumableLoader(batches, sampler=sampler, batch_size=None)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return normalised(batch, self.normalization)

    def test_batches(
        self, count: int | None = None, *, first: int = 0, step: int = 1
    ) -> Iterator[Batch]:
        """All test images, or `count` evenly spaced ones, in order; see `in_order`."""
        return self.in_order(self.splits.test.spread(count), first=first, step=step)

    def in_order(self, images: ImageSet, *, first: int = 0, step: int = 1) -> Iterator[Batch]:
        """Batches of `batch_size` images in order: every `step`-th from number `first` on."""
        images, size = self._on_device(images), self.batch_size
        for start, pixels in strided_batches(images.images, size, first=first, step=step):
            labels = images.labels[start : start + len(pixels)]
            yield Batch(self.normalization.from_bytes(pixels), labels, len(pixels))

    def _on_device(self, images: ImageSet) -> ImageSet:
        """The images on the trainer's device if a trainer is attached."""
        return images.to(self._device) if self.trainer else images

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")


def _memory(tensor: Tensor) -> memoryview:
    """The bytes of a tensor: a copy of all images may not fit."""
    return tensor.cpu().contiguous().numpy().reshape(-1).data


def _format_size(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
