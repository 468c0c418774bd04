"""Work that the ranks of a study divide, with the results of one rank."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import distributed as dist

from cwx.training.rank_failures import await_all_ranks, raised_on_all_ranks

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """The ranks that divide a work, and the index of this one; by default one.

    Its methods are collective operations: all ranks make the same calls in the same order. An error
    on any rank is raised on all of them (`cwx.training.rank_failures`).

    Attributes:
        index: of this rank, from 0.
        count: the number of ranks.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def running(cls) -> "Ranks":
        """Those of the process group; one without a group.

        A study that trains nothing starts no other processes, whatever its trainer.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def has(self, number: int) -> bool:
        """Whether this rank does the part with this number: parts are dealt out in turn."""
        return number % self.count == self.index

    def own(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items of this rank."""
        return (item for number, item in enumerate(items) if self.has(number))

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The results for all items in order, on every rank; each is computed on one rank.

        Args:
            function: depends on the item alone; its result can be pickled.
            items: the same on all ranks.
        """
        return self.interleave(lambda: [function(item) for item in self.own(items)])

    def interleave(self, compute: Callable[[], Sequence[Result]]) -> list[Result]:
        """The results of all items in order, on every rank.

        Args:
            compute: the results of the items of this rank, in order; they can be pickled.
        """
        parts = self.collect(compute)
        # The parts of the first ranks may be longer by one.
        length = sum(map(len, parts))
        return [parts[number % self.count][number // self.count] for number in range(length)]

    def collect(self, compute: Callable[[], Result]) -> list[Result]:
        """The results of all ranks, in their order, on every rank.

        Args:
            compute: the part of this rank; its result can be pickled.
        """
        if self.count == 1:
            return [compute()]
        with raised_on_all_ranks():
            result = compute()
        # Without a limit of time, which a collective operation has.
        await_all_ranks()
        results: list[Any] = [None] * self.count
        dist.all_gather_object(results, result)
        return results
