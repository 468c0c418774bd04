"""Batches of non-target test images: each search goes through those of its own (ISCP, Algorithm 1).

A search is known by its class and its place among those of the class, from which its order of
images follows: it sees the same whichever others run beside it, and wherever.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cwx.functional.rng import stream

Key = tuple[int, int]


class NontargetBatch(NamedTuple):
    """One step of every search that still has images in this pass.

    Attributes:
        searches: which they are, ``[s]``, as places among all.
        images: indices of test images, ``[s, b]``.
        weights: ``[s, b]``, 0 where an index only fills up the last batch of a pass.
    """

    searches: Tensor
    images: Tensor
    weights: Tensor

    def parts(self, *, rank: int, ranks: int, chunk: int | None) -> "Iterator[NontargetBatch]":
        """A rank's share of the searches, at most `chunk` of them at a time; null for all."""
        mine = (self.searches % ranks == rank).nonzero()[:, 0]
        for part in mine.split(chunk or max(len(mine), 1)):
            if len(part):
                yield NontargetBatch(*(each[part] for each in self))


class Nontarget(L.LightningDataModule):
    """Passes over the non-target images; an epoch is one pass, as long as the longest search's.

    Args:
        searches: (class, place) of each.
        labels: of all test images, ``[t]``.
        searched: boolean mask ``[t]``, those to draw from.
        batch_size: B, images a search and step.
        seed: of the order.
    """

    def __init__(
        self,
        *,
        searches: Sequence[Key],
        labels: Tensor,
        searched: Tensor,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.searches, self.batch_size, self.seed = list(searches), batch_size, seed
        self.pools = {
            label: (searched & (labels != label)).nonzero()[:, 0]
            for label in {label for label, _ in searches}
        }

    @property
    def steps(self) -> int:
        """Of a pass."""
        longest = max(len(pool) for pool in self.pools.values())
        return -(-longest // self.batch_size)

    def train_dataloader(self) -> DataLoader[NontargetBatch]:
        return DataLoader(_Given(), sampler=_Pass(self), batch_size=None)

    def batches(self, epoch: int) -> Iterator[NontargetBatch]:
        """Those of one pass."""
        orders = [self._order(key, epoch) for key in self.searches]
        filled = torch.full((len(orders), self.steps * self.batch_size), -1)
        for row, order in enumerate(orders):
            filled[row, : len(order)] = order
        for indices in filled.split(self.batch_size, dim=1):
            searches = (indices >= 0).any(1).nonzero()[:, 0]
            active = indices[searches]
            yield NontargetBatch(searches, active.clamp_min(0), (active >= 0).float())

    def _order(self, key: Key, epoch: int) -> Tensor:
        pool = self.pools[key[0]]
        return pool[torch.randperm(len(pool), generator=stream(self.seed, *key, epoch))]


class _Pass(Sampler[NontargetBatch]):
    """The batches of the epoch that Lightning tells."""

    def __init__(self, module: Nontarget) -> None:
        self.module, self.epoch = module, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.module.steps

    def __iter__(self) -> Iterator[NontargetBatch]:
        # Not before the first batch is asked for: Lightning may tell the epoch after this call.
        yield from self.module.batches(self.epoch)


class _Given(Dataset[NontargetBatch]):
    """Batches as they are drawn: images stay where they lie."""

    def __getitem__(self, batch: NontargetBatch) -> NontargetBatch:
        return batch
