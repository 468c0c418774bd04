"""A DataLoader whose worker processes decode images, with errors of one clear line."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from cwx.data.resumable_loader import ResumableLoader


@dataclass(frozen=True)
class _Refusal:
    """An error of a user's file, brought from a worker to the main process."""

    message: str


class _Guarded(Dataset[Any]):
    """Returns what `dataset` refuses, which DataLoader would wrap into a traceback."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except ValueError as error:
            return _Refusal(str(error))


class WorkerLoader(ResumableLoader):
    """Loads the items of `dataset` at the elements of `sampler`, in their order.

    Args:
        dataset: indexed with whole batches.
        sampler: each element is one index of `dataset`.
        workers: processes; 0 for the calling one.
        training: the loader is iterated once per epoch, and keeps its workers in between.
        pin: copy the tensors into page-locked memory, for an accelerator.

    Raises:
        ValueError: when iterated: the dataset raised a `ValueError`.
        RuntimeError: when iterated: a worker has ended; the message has "DataLoader worker".
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: Iterable[Any],
        *,
        workers: int,
        training: bool = False,
        pin: bool = False,
    ) -> None:
        super().__init__(
            _Guarded(dataset),
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            persistent_workers=training and workers > 0,
            pin_memory=pin,
            # The seed of the workers comes from here, not from the global state, on which layers
            # such as dropout depend: the number of workers must not change a result.
            generator=torch.Generator(),
        )
        # An attribute of another name: DataLoader refuses changes of its own.
        self.is_training = training

    def __iter__(self) -> Any:
        # A generator: the workers begin at the first item, when the epoch of a sampler is set.
        if self.is_training:
            # The loader of images in memory draws one seed per epoch: leave the same state.
            torch.empty((), dtype=torch.int64).random_()
        try:
            for item in super().__iter__():
                if isinstance(item, _Refusal):
                    raise ValueError(item.message)
                yield item
        except (ConnectionError, EOFError) as error:
            # A worker has ended that holds the memory of an item.
            raise RuntimeError("DataLoader worker exited unexpectedly") from error
