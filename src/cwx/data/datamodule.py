"""The LightningDataModule of the images of a study."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, NamedTuple, Self

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cwx.data.corruption import Corruption, CorruptionResult, NoCorruption, check_result
from cwx.data.corruption_changes import Changes
from cwx.data.global_batches import Draw, GlobalBatches
from cwx.data.splits import ImageSet, Source, Splits
from cwx.data.step_loaders import rank_and_world_size
from cwx.functional.images import Normalization


class Batch(NamedTuple):
    """One rank's part of a batch.

    Attributes:
        images: normalised, ``[b, C, H, W]``.
        labels: class indices ``[b]``.
        total: the number of images of the batch on all ranks.
    """

    images: Tensor
    labels: Tensor
    total: int


class ImageData(L.LightningDataModule):
    """Training and test images in memory; batches lie on the device of an attached trainer.

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
        self._order: tuple[int, tuple[int, ...]] | None = None
        self._splits: Splits | None = None

    def prepare_data(self) -> None:
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        if self._splits is None:
            splits = self.source.load()
            splits.check()
            splits = replace(splits, train=self._limited(splits.train))
            self._splits, self.clean = splits, splits.train
            self.corrupt(NoCorruption())
            self.normalization = self._normalization()

    def _limited(self, train: ImageSet) -> ImageSet:
        if self.per_class is not None:
            train = train.first(self.per_class)
        if self.total is None or len(train) <= self.total:
            return train
        per_class = equal_part(train.labels.bincount().tolist(), self.total)
        if per_class < 1:
            raise ValueError(
                f"data.total is {self.total}, below the number of classes with training images: "
                f"give at least {len(train.labels.unique())}, or null for all images"
            )
        return train.first(per_class)

    def corrupt(self, corruption: Corruption) -> CorruptionResult:
        """Corrupt the clean training images and train on the result; test images stay clean.

        Raises:
            ValueError: the corruption does not fit these images.
        """
        result = corruption(self.clean, self.classes)
        self.changes = check_result(result, self.clean, self.classes)
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
        return self._digest(self.splits.train)

    def test_fingerprint(self) -> str:
        """The same digest, of the test images."""
        return self._digest(self.splits.test)

    def _digest(self, images: ImageSet) -> str:
        digest = hashlib.sha256(
            repr((images.images.shape, self.classes, self.normalization)).encode()
        )
        for tensor in (images.images, images.labels):
            # Hash the memory of the tensor: a copy of all images may not fit.
            digest.update(tensor.cpu().contiguous().numpy().reshape(-1).data)
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
        images = self._on_device(self.splits.train)
        sampler = GlobalBatches(
            len(images),
            size=size,
            seeds=seeds,
            rank=rank,
            ranks=ranks,
            device=images.images.device,
        )
        return DataLoader(_Batches(images, self.normalization), sampler=sampler, batch_size=None)

    def test_batches(self, count: int | None = None) -> Iterator[Batch]:
        """All test images, or `count` evenly spaced ones, in order; see `in_order`."""
        return self.in_order(self.splits.test.spread(count))

    def in_order(self, images: ImageSet) -> Iterator[Batch]:
        """Batches of `batch_size` images in order, the same on every rank."""
        images = self._on_device(images)
        batches = _Batches(images, self.normalization)
        for indices in torch.arange(len(images), device=images.images.device).split(
            self.batch_size
        ):
            yield from batches[[(indices, len(indices))]]

    def _on_device(self, images: ImageSet) -> ImageSet:
        """The images on the trainer's device if a trainer is attached."""
        return images.to(self.trainer.strategy.root_device) if self.trainer else images


def _format_size(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


class _Batches(Dataset[list[Batch]]):
    """Indexes whole batches at once, without a Python loop over images."""

    def __init__(self, images: ImageSet, normalization: Normalization) -> None:
        self.set, self.normalization = images, normalization

    def __getitem__(self, draws: list[Draw]) -> list[Batch]:
        return [
            Batch(
                self.normalization.from_bytes(self.set.images[indices]),
                self.set.labels[indices],
                total,
            )
            for indices, total in draws
        ]


def equal_part(counts: Sequence[int], total: int) -> int:
    """The largest n for which the first n images of every class are at most `total` together.

    Args:
        counts: images of each class.

    >>> equal_part([10, 3, 100], 20), equal_part([1, 1], 9), equal_part([5, 5], 1)
    (8, 1, 0)
    """
    return max(
        n for n in range(max(counts, default=0) + 1) if sum(min(c, n) for c in counts) <= total
    )
