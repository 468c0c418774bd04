"""Steps and ranks: how the data modules cut an optimisation into epochs and among processes."""

from collections.abc import Sequence

import lightning as L
from torch.utils.data import DataLoader, Dataset


def epoch_length(steps: int, at_most: int) -> int:
    """The longest epoch of no more than `at_most` steps of which `steps` is a whole number.

    Lightning resumes bit for bit between epochs, not within one, nor when it is told to stop
    at a number of steps.

    Raises:
        ValueError: either is below 1.

    >>> epoch_length(250, 100)
    50
    """
    for name, value in (("iterations", steps), ("checkpoint_every", at_most)):
        if value < 1:
            raise ValueError(f"{name} is {value}: give 1 or more")
    return max(length for length in range(1, min(steps, at_most) + 1) if steps % length == 0)


def place(module: L.LightningDataModule) -> tuple[int, int]:
    """This process's rank and the number of ranks, as far as a trainer is attached."""
    trainer = module.trainer
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


class Steps(L.LightningDataModule):
    """Epochs of `count` steps that need no data."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader(_Count(self.count), batch_size=None)


class Turns(L.LightningDataModule):
    """Numbers to predict for, one a step, dealt out to the ranks in turn."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__()
        self.numbers = list(numbers)
        # There may be fewer numbers than ranks.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def predict_dataloader(self) -> DataLoader[int]:
        rank, ranks = place(self)
        return DataLoader(_Listed(self.numbers[rank::ranks]), batch_size=None)


class _Listed(Dataset[int]):
    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, step: int) -> int:
        return self.numbers[step]


class _Count(Dataset[int]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> int:
        return step
