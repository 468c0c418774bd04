"""The LightningDataModule every study reads its images from."""

import copy
import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple, Self

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cwx.data.sources import ImageSet, Source, Splits
from cwx.functional.images import Normalization
from cwx.functional.streams import stream


class Batch(NamedTuple):
    """One rank's part of a batch: normalised images, labels, and the images on all ranks."""

    images: Tensor
    labels: Tensor
    total: int


class ImageData(L.LightningDataModule):
    """Train and test images held in memory, on the trainer's device while one is attached.

    A training batch is one global batch cut among the ranks, so that any number of processes
    sees the same batches. Its order depends on the seed and the epoch alone.

    Args:
        source: where the images come from.
        mean, std: of the normalisation, on unit pixels: one number, or one a channel.
        batch_size: images a forward pass in evaluation.
    """

    def __init__(
        self,
        *,
        source: Source,
        mean: float | list[float],
        std: float | list[float],
        batch_size: int,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size is {batch_size}: give 1 or more")
        self.source, self.batch_size = source, batch_size
        self._mean, self._std = mean, std
        self._order: tuple[int, int] | None = None
        self._splits: Splits | None = None

    def prepare_data(self) -> None:
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        if self._splits is None:
            self._splits = self.source.load()
            self.normalization = self._normalization()

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
        """Both splits as bytes.

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
        train = self.splits.train
        digest = hashlib.sha256(
            repr((train.images.shape, self.classes, self.normalization)).encode()
        )
        for tensor in (train.images, train.labels):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def batches(self, *, size: int, seed: int) -> Self:
        """A view of the same images whose training loader draws shuffled batches of `size`."""
        if size < 1:
            raise ValueError(f"the batch size is {size}: give 1 or more")
        view = copy.copy(self)
        view._order = (size, seed)
        view.trainer = None
        return view

    def train_dataloader(self) -> DataLoader[Batch]:
        if self._order is None:
            raise RuntimeError("training needs a batch size and a seed: use data.batches(...)")
        size, seed = self._order
        rank, ranks = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        sampler = GlobalBatches(
            len(self.splits.train), size=size, seed=seed, rank=rank, ranks=ranks
        )
        return self._loader(self.splits.train, sampler)

    def test_dataloader(self) -> DataLoader[Batch]:
        sampler = InOrder(len(self.splits.test), size=self.batch_size)
        return self._loader(self.splits.test, sampler)

    def _loader(self, images: ImageSet, sampler: Sampler[tuple[Tensor, int]]) -> DataLoader[Batch]:
        if self.trainer is not None:
            images = images.to(self.trainer.strategy.root_device)
        return DataLoader(_Batches(images, self.normalization), sampler=sampler, batch_size=None)


class _Batches(Dataset[Batch]):
    """Whole batches by their indices: no Python loop over single images."""

    def __init__(self, images: ImageSet, normalization: Normalization) -> None:
        self.set, self.normalization = images, normalization

    def __getitem__(self, part: tuple[Tensor, int]) -> Batch:
        indices, total = part
        indices = indices.to(self.set.images.device)
        images = self.normalization.from_bytes(self.set.images[indices])
        return Batch(images, self.set.labels[indices], total)


class InOrder(Sampler[tuple[Tensor, int]]):
    """All indices in order, `size` at a time, the same on every rank."""

    def __init__(self, count: int, *, size: int) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        for indices in torch.arange(self.count).split(self.size):
            yield indices, len(indices)


class GlobalBatches(Sampler[tuple[Tensor, int]]):
    """One epoch's shuffled batches, of which each rank takes its slice.

    Yields the rank's indices and the size of the whole batch, by which a mean over ranks of
    unequal slices is weighted. The order is a function of the seed and the epoch, so that a
    resumed run sees what an uninterrupted one sees.
    """

    def __init__(self, count: int, *, size: int, seed: int, rank: int, ranks: int) -> None:
        self.count, self.size, self.seed = count, size, seed
        self.rank, self.ranks = rank, ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        order = torch.randperm(self.count, generator=stream(self.seed, self.epoch))
        for batch in order.split(self.size):
            yield batch[self.rank :: self.ranks], len(batch)
