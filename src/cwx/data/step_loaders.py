"""Dividing the steps of an optimisation into epochs, and the work among ranks."""

from collections.abc import Sequence

import lightning as L
from torch.utils.data import DataLoader, Dataset


def epoch_length(steps: int, at_most: int) -> int:
    """The largest divisor of `steps` that is at most `at_most`: the steps per epoch.

    Methods resume bit for bit only between epochs: not within one, as the training of networks
    does, and not with ``max_steps``.

    Raises:
        ValueError: `steps` or `at_most` is below 1.

    >>> epoch_length(250, 100)
    50
    """
    for name, value in (("iterations", steps), ("checkpoint_every", at_most)):
        if value < 1:
            raise ValueError(f"{name} is {value}: give 1 or more")
    return max(length for length in range(1, min(steps, at_most) + 1) if steps % length == 0)


def rank_and_world_size(module: L.LightningDataModule) -> tuple[int, int]:
    """This process's rank and the number of ranks; (0, 1) without an attached trainer."""
    trainer = module.trainer
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


class Steps(L.LightningDataModule):
    """A data module for epochs of `count` steps that need no data."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader(_StepNumbers(self.count), batch_size=None)


class RoundRobinIndices(L.LightningDataModule):
    """A data module for prediction: one index per step, assigned to the ranks in turn."""

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__()
        self.indices = list(indices)
        # There may be fewer indices than ranks.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def predict_dataloader(self) -> DataLoader[int]:
        rank, ranks = rank_and_world_size(self)
        return DataLoader(_Indices(self.indices[rank::ranks]), batch_size=None)


class _Indices(Dataset[int]):
    def __init__(self, indices: Sequence[int]) -> None:
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, step: int) -> int:
        return self.indices[step]


class _StepNumbers(Dataset[int]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> int:
        return step
