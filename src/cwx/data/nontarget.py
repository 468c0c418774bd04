"""Batches of non-target test images for parallel searches (ISCP, Algorithm 1).

A search has a key: its class, and its index within the class. The key and the seed determine the
order of its images, whatever other searches run and on whatever rank.
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
        searches: indices of the searches, ``[s]``.
        images: indices of test images, ``[s, b]``.
        weights: ``[s, b]``, 1, or 0 for the padding in the last batch of a pass.
    """

    searches: Tensor
    images: Tensor
    weights: Tensor

    def parts(self, *, rank: int, ranks: int, chunk: int | None) -> "Iterator[NontargetBatch]":
        """The searches of one rank, at most `chunk` at a time; ``None`` for all at once."""
        own = (self.searches % ranks == rank).nonzero()[:, 0]
        for part in own.split(chunk or max(len(own), 1)):
            if len(part):
                yield NontargetBatch(*(tensor[part] for tensor in self))


class Nontarget(L.LightningDataModule):
    """A data module: one epoch is one pass of every search over its non-target images.

    An epoch has as many steps as the longest pass.

    Args:
        searches: the key (class, index within the class) of each search.
        labels: of all test images, ``[t]``.
        searched: boolean mask ``[t]`` of the test images to draw from.
        batch_size: B, images per search and step.
        seed: of the order of the images.
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
    def lengths(self) -> Tensor:
        """The number of steps of each search in a pass ``[s]``."""
        images = torch.tensor([len(self.pools[label]) for label, _ in self.searches])
        return images.add(self.batch_size - 1) // self.batch_size

    @property
    def steps(self) -> int:
        """The number of steps in a pass."""
        return int(self.lengths.max())

    def train_dataloader(self) -> DataLoader[NontargetBatch]:
        return DataLoader(_Identity(), sampler=_Pass(self), batch_size=None)

    def batches(self, epoch: int) -> Iterator[NontargetBatch]:
        """The batches of one pass."""
        orders = [self._order(key, epoch) for key in self.searches]
        padded = torch.full((len(orders), self.steps * self.batch_size), -1)
        for row, order in enumerate(orders):
            padded[row, : len(order)] = order
        for indices in padded.split(self.batch_size, dim=1):
            searches = (indices >= 0).any(1).nonzero()[:, 0]
            active = indices[searches]
            yield NontargetBatch(searches, active.clamp_min(0), (active >= 0).float())

    def _order(self, key: Key, epoch: int) -> Tensor:
        pool = self.pools[key[0]]
        return pool[torch.randperm(len(pool), generator=stream(self.seed, *key, epoch))]


class _Pass(Sampler[NontargetBatch]):
    """The batches of the current epoch, which Lightning sets."""

    def __init__(self, module: Nontarget) -> None:
        self.module, self.epoch = module, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.module.steps

    def __iter__(self) -> Iterator[NontargetBatch]:
        # A generator reads the epoch at the first batch: Lightning may set it after `iter()`.
        yield from self.module.batches(self.epoch)


class _Identity(Dataset[NontargetBatch]):
    """Passes the index batches of the sampler on: images are not copied."""

    def __getitem__(self, batch: NontargetBatch) -> NontargetBatch:
        return batch
