"""Sets of examples made batch by batch: what is written stays, what is missing can still be made.

identity.json                what the set is, in full
shard-00000.safetensors …    a batch each: tensors by name, a row an example
complete.json                written last: the number of examples, and of those in a batch
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cwx.storage.atomic import write_json, write_tensors

_COMPLETE = "complete.json"


class Shards:
    """A set of `count` examples in a folder, in batches that any process may write in any order.

    Args:
        folder: of this set alone.
        count: of examples.
        size: examples in a batch; the last may have fewer.

    Raises:
        ValueError: `count` or `size` is below 1.
    """

    def __init__(self, folder: Path, *, count: int, size: int) -> None:
        if count < 1 or size < 1:
            raise ValueError(
                f"a set of {count} examples in batches of {size} has no batch: give 1 or more"
            )
        self.folder, self.count, self.size = folder, count, size

    @classmethod
    def opened(cls, folder: Path) -> "Shards":
        """The complete set in `folder`.

        Raises:
            ValueError: the folder holds none.
        """
        try:
            found = json.loads((folder / _COMPLETE).read_text())
            return cls(folder, count=int(found["count"]), size=int(found["size"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder} holds no complete set of examples ({type(error).__name__}): let the run "
                "that makes it finish, or name another folder"
            ) from error

    def __len__(self) -> int:
        """The number of batches."""
        return -(-self.count // self.size)

    def rows(self, number: int) -> slice:
        """Which examples are in a batch."""
        return slice(number * self.size, min(self.count, (number + 1) * self.size))

    def missing(self) -> list[int]:
        """The batches that are not written yet, in order."""
        return [number for number in range(len(self)) if not self._file(number).exists()]

    def start(self, identity: Mapping[str, Any]) -> None:
        write_json(self.folder / "identity.json", identity)

    def write(self, number: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep a batch, each tensor ``[rows, …]``: whole and on disk, or not at all."""
        rows = self._length(number)
        assert all(len(tensor) == rows for tensor in tensors.values())
        write_tensors(self._file(number), tensors, {})

    def complete(self) -> None:
        """Say that every batch is written."""
        assert not self.missing()
        write_json(self.folder / _COMPLETE, {"count": self.count, "size": self.size})

    def read(self) -> dict[str, Tensor]:
        """All examples in order, by the names that they were written with.

        Raises:
            ValueError: a batch is missing or damaged.
        """
        return {name: self.tensor(name) for name in self._names()}

    def tensor(self, name: str) -> Tensor:
        """One tensor of all examples, in order; of the others nothing is read.

        Raises:
            ValueError: a batch is missing or damaged, or has no such tensor.
        """
        return torch.cat([self._read(number, name) for number in range(len(self))])

    def batches(self, name: str) -> Iterator[tuple[slice, Tensor]]:
        """One tensor a batch at a time: which examples, and their part ``[rows, …]``."""
        for number in range(len(self)):
            yield self.rows(number), self._read(number, name)

    def at(self, name: str, indices: Tensor) -> Tensor:
        """One tensor of the examples at `indices` ``[k]``, in that order.

        One batch is held in memory at a time.
        """
        order = indices.argsort(stable=True)
        metrics = indices[order] // self.size
        parts = [
            self._read(number, name)[indices[order][metrics == number] - number * self.size]
            for number in metrics.unique().tolist()
        ]
        # Of no indices, none of the right shape.
        together = torch.cat(parts) if parts else self._read(0, name)[:0]
        return together[order.argsort()]

    def _names(self) -> list[str]:
        with self._opened(0) as file:
            return sorted(file.keys())

    def _read(self, number: int, name: str) -> Tensor:
        file = self._file(number)
        with self._opened(number) as opened:
            if name not in opened.keys():  # noqa: SIM118
                raise ValueError(f"{file} has no {name}: name another set")
            found: Tensor = opened.get_tensor(name)
        if len(found) != self._length(number):
            raise ValueError(
                f"{file} has not the {self._length(number)} examples of its batch: delete it, and "
                "the run that made it makes it again"
            )
        return found

    @contextmanager
    def _opened(self, number: int) -> Iterator[Any]:
        file = self._file(number)
        try:
            with safe_open(file, framework="pt") as opened:
                yield opened
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{file} is damaged or missing ({error}): delete it, and the run that made it "
                "makes it again"
            ) from error

    def _length(self, number: int) -> int:
        rows = self.rows(number)
        return int(rows.stop - rows.start)

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"
