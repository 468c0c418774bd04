"""The LightningDataModule every study reads its images from."""

import copy
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Self

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cwx.data.corruption import Corrupted, Corruption, NoCorruption
from cwx.data.splits import ImageSet, Source, Splits
from cwx.data.step_loaders import place
from cwx.functional.images import Normalization
from cwx.functional.rng import stream


class Batch(NamedTuple):
    """One rank's part of a batch: normalised images, labels, and the images on all ranks."""

    images: Tensor
    labels: Tensor
    total: int


class ImageData(L.LightningDataModule):
    """Train and test images held in memory, on the trainer's device while one is attached.

    A training batch is one global batch cut among the ranks, so that any number of processes
    sees the same batches. Its order depends on the seed and the epoch alone. Several networks
    may train side by side, each on batches in an order of its own.

    Args:
        source: where the images come from.
        mean, std: of the normalisation, on unit pixels: one number, or one a channel.
        batch_size: images a forward pass in evaluation.
        per_class: at most that many training images a class, the first of them; null for all.

    Attributes:
        clean: the training images before any corruption, once they are loaded.
        corrupted: what a corruption made of them, trained on unless `train_on` replaced it.
    """

    clean: ImageSet
    corrupted: Corrupted

    def __init__(
        self,
        *,
        source: Source,
        mean: float | list[float],
        std: float | list[float],
        batch_size: int,
        per_class: int | None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size is {batch_size}: give 1 or more")
        if per_class is not None and per_class < 1:
            raise ValueError(f"data.per_class is {per_class}: give 1 or more, or null for all")
        self.source, self.batch_size, self.per_class = source, batch_size, per_class
        self._mean, self._std = mean, std
        self._order: tuple[int, tuple[int, ...]] | None = None
        self._splits: Splits | None = None

    def prepare_data(self) -> None:
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        if self._splits is None:
            splits = self.source.load()
            splits.check()
            if self.per_class is not None:
                splits = replace(splits, train=splits.train.first(self.per_class))
            self._splits, self.clean = splits, splits.train
            self.corrupt(NoCorruption())
            self.normalization = self._normalization()

    def corrupt(self, corruption: Corruption) -> Corrupted:
        """Train on what `corruption` makes of the clean training images; test images stay clean.

        Raises:
            ValueError: it cannot be done to these images.
        """
        corrupted = corruption(self.clean, self.classes)
        if not isinstance(corrupted, Corrupted) or len(corrupted.images) != len(self.clean):
            raise ValueError(
                f"corruption returned {type(corrupted).__name__} for {len(self.clean)} images: "
                "return a cwx.data.corruption.Corrupted with all of them, in their order"
            )
        self.corrupted = corrupted
        self._splits = replace(self.splits, train=self.corrupted.images)
        return self.corrupted

    def train_on(self, images: ImageSet) -> None:
        """Train on `images` in place of the corrupted ones; test images stay.

        Raises:
            ValueError: they are not of the size of the test images, or not of their classes.
        """
        expected, found = self.splits.test.images.shape[1:], images.images.shape[1:]
        if expected != found:
            raise ValueError(
                f"the training images are to be replaced by images of {_by(found)}, but the test "
                f"images are {_by(expected)}: choose the data that they were made from"
            )
        if ((images.labels < 0) | (images.labels >= len(self.classes))).any():
            raise ValueError(
                f"the training images are to be replaced by images with labels in "
                f"{int(images.labels.min())}-{int(images.labels.max())}, but there are "
                f"{len(self.classes)} classes: choose the data that they were made from"
            )
        self._splits = replace(self.splits, train=images)

    def without(self, dropped: Tensor) -> Self:
        """A view whose training images lack those that the boolean mask `dropped` ``[n]`` mark."""
        return self._view_of(self.splits.train.at(~dropped))

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
        """Both splits as bytes, the training images as they are trained on.

        Raises:
            RuntimeError: `setup` has not run.
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
        """A digest of the training images, their labels, classes and normalisation.

        Two studies on the same images share experts wherever the files lie.
        """
        return self._digest(self.splits.train)

    def test_fingerprint(self) -> str:
        """The same of the test images."""
        return self._digest(self.splits.test)

    def _digest(self, images: ImageSet) -> str:
        digest = hashlib.sha256(
            repr((images.images.shape, self.classes, self.normalization)).encode()
        )
        for tensor in (images.images, images.labels):
            # As it lies in memory: a copy of all images is too much.
            digest.update(tensor.cpu().contiguous().numpy().reshape(-1).data)
        return digest.hexdigest()

    def batches(self, *, size: int, seeds: Sequence[int]) -> Self:
        """A view of the same images whose training loader draws shuffled batches of `size`.

        Each step brings a list of batches, one for each of `seeds`.
        """
        if size < 1:
            raise ValueError(f"the batch size is {size}: give 1 or more")
        view = copy.copy(self)
        view._order = (size, tuple(seeds))
        view.trainer = None
        return view

    def train_dataloader(self) -> DataLoader[list[Batch]]:
        if self._order is None:
            raise RuntimeError("training needs a batch size and seeds: use data.batches(...)")
        size, seeds = self._order
        rank, ranks = place(self)
        images = self._here(self.splits.train)
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
        """The test images, or `count` spread over them, in order and as `in_order`."""
        return self.in_order(self.splits.test.spread(count))

    def in_order(self, images: ImageSet) -> Iterator[Batch]:
        """The images in their order, `batch_size` at a time, the same on every rank."""
        images = self._here(images)
        batches = _Batches(images, self.normalization)
        for indices in torch.arange(len(images), device=images.images.device).split(
            self.batch_size
        ):
            yield from batches[[(indices, len(indices))]]

    def _here(self, images: ImageSet) -> ImageSet:
        """The images on the trainer's device, while one is attached."""
        return images.to(self.trainer.strategy.root_device) if self.trainer else images


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


Draw = tuple[Tensor, int]


class _Batches(Dataset[list[Batch]]):
    """Whole batches by their indices: no Python loop over single images."""

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


class GlobalBatches(Sampler[list[Draw]]):
    """One epoch's shuffled batches for each seed, of which each rank takes its slice.

    Yields, for each seed, the rank's indices and the size of the whole batch, by which a mean
    over ranks of unequal slices is weighted. The order is a function of the seed and the epoch,
    so that a resumed run sees what an uninterrupted one sees, and a seed among others what it
    sees alone.
    """

    def __init__(
        self,
        count: int,
        *,
        size: int,
        seeds: Sequence[int],
        rank: int,
        ranks: int,
        device: torch.device,
    ) -> None:
        self.count, self.size, self.seeds, self.device = count, size, seeds, device
        self.rank, self.ranks = rank, ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def __iter__(self) -> Iterator[list[Draw]]:
        # One transfer an epoch.
        orders = [
            torch.randperm(self.count, generator=stream(seed, self.epoch)).to(self.device)
            for seed in self.seeds
        ]
        for batches in zip(*(order.split(self.size) for order in orders), strict=True):
            yield [(batch[self.rank :: self.ranks], len(batch)) for batch in batches]
