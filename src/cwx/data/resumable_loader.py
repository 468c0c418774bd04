"""A loader of training batches that can begin within an epoch."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader


class ResumableLoader(DataLoader[Any]):
    """Counts the batches of an epoch that it has returned, for checkpoints within an epoch.

    Lightning writes the state of such a loader into each checkpoint, and sets it before the loader
    is iterated after a resume. Only a loader whose sampler has `skip`, such as
    `cwx.data.global_batches.GlobalBatches`, can take a state: the batches that were returned are
    not loaded again. Batches that worker processes load in advance are not counted.
    """

    _first = 0
    _returned = 0

    def __iter__(self) -> Any:
        return self._counted(super().__iter__())

    def _counted(self, batches: Iterator[Any]) -> Iterator[Any]:
        self._returned, self._first = self._first, 0
        for batch in batches:
            self._returned += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The number of batches of the current epoch that were returned or skipped."""
        return {"batches": self._returned}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out so many batches at the start of the next epoch."""
        sampler: Any = self.sampler
        self._first = state["batches"]
        sampler.skip(self._first)
