"""Shuffled training batches, divided among the ranks."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import Sampler

from cwx.functional.rng import stream

# The indices of one rank, and the number of images of the batch on all ranks.
Draw = tuple[Tensor, int]


class GlobalBatches(Sampler[list[Draw]]):
    """One epoch's shuffled batches per seed; each rank takes its slice of each batch.

    Yields, for each seed, the rank's indices and the size of the global batch, which weights means
    over ranks with slices of different sizes. The order is a function of the seed and the epoch
    only. A resumed run therefore draws the same batches as an uninterrupted one, and a seed the
    same alone as among others. A run that is resumed within an epoch skips its first batches.
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
        self._first = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def skip(self, batches: int) -> None:
        """Leave out the first `batches` of the next epoch that is iterated, and of no other."""
        self._first = batches

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def with_epoch(self) -> "EpochBatches":
        """The same batches, each with its epoch."""
        return EpochBatches(self)

    def __iter__(self) -> Iterator[list[Draw]]:
        # One transfer to the device per epoch.
        orders = [
            torch.randperm(self.count, generator=stream(seed, self.epoch)).to(self.device)
            for seed in self.seeds
        ]
        first, self._first = self._first, 0
        steps = zip(*(order.split(self.size) for order in orders), strict=True)
        for batches in islice(steps, first, None):
            yield [(batch[self.rank :: self.ranks], len(batch)) for batch in batches]


class EpochBatches(Sampler[tuple[int, list[Draw]]]):
    """The batches of `GlobalBatches`, each with its epoch, which random crops depend on."""

    def __init__(self, batches: GlobalBatches) -> None:
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def skip(self, batches: int) -> None:
        self.batches.skip(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[int, list[Draw]]]:
        for draws in self.batches:
            yield self.batches.epoch, draws
