"""Sets of examples, written batch by batch; an interrupted set can be continued.

identity.json                the settings that determine the set
shard-00000.safetensors …    one batch each: tensors by name, one row per example
complete.json                written last: the number of examples and the batch size
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cwx.storage.atomic import write_json, write_tensors
from cwx.storage.json_files import read_object
from cwx.storage.regular_files import check_regular

_COMPLETE = "complete.json"
# Examples of a set; a larger number in a file is damage.
_MAX_COUNT = 10**9


class Shards:
    """A set of `count` examples in a folder; any process may write its batches, in any order.

    Args:
        folder: contains this set only.
        count: the number of examples.
        size: examples per batch; the last batch may have fewer.

    Raises:
        ValueError: `count` or `size` is below 1.
    """

    def __init__(self, folder: Path, *, count: int, size: int) -> None:
        if count < 1 or size < 1:
            raise ValueError(
                f"a set of {count} examples in batches of {size} is empty: give 1 or more of both"
            )
        self.folder, self.count, self.size = folder, count, size

    @classmethod
    def open(cls, folder: Path) -> "Shards":
        """The complete set in `folder`.

        Raises:
            ValueError: the folder has no complete set.
        """
        try:
            complete = read_object(folder / _COMPLETE)
            count, size = complete.get("count"), complete.get("size")
            if not (type(count) is type(size) is int and max(count, size) <= _MAX_COUNT):
                raise ValueError(f"{_COMPLETE} states no valid count and size")
            return cls(folder, count=count, size=size)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(
                f"{folder} holds no complete set of examples ({reason}): let the run "
                "that writes it finish, or name another folder"
            ) from error

    def __len__(self) -> int:
        """The number of batches."""
        return -(-self.count // self.size)

    def rows(self, number: int) -> slice:
        """The examples in batch `number`."""
        return slice(number * self.size, min(self.count, (number + 1) * self.size))

    def missing(self) -> list[int]:
        """The numbers of the unwritten batches, in order."""
        return [number for number in range(len(self)) if not self._file(number).exists()]

    def start(self, identity: Mapping[str, Any]) -> None:
        write_json(self.folder / "identity.json", identity)

    def write(self, number: int, tensors: Mapping[str, Tensor]) -> None:
        """Write a batch atomically; each tensor is ``[rows, …]``."""
        rows = self._length(number)
        assert all(len(tensor) == rows for tensor in tensors.values())
        write_tensors(self._file(number), tensors, {})

    def complete(self) -> None:
        """Mark the set as complete, once every batch is written."""
        assert not self.missing()
        # The store may be read-only.
        if not (self.folder / _COMPLETE).exists():
            write_json(self.folder / _COMPLETE, {"count": self.count, "size": self.size})

    def read(self) -> dict[str, Tensor]:
        """All tensors of all examples, in order, by name.

        Raises:
            ValueError: a batch is missing or damaged.
        """
        return {name: self.tensor(name) for name in self._names()}

    def tensor(self, name: str) -> Tensor:
        """One tensor of all examples, in order; other tensors are not read.

        Raises:
            ValueError: a batch is missing or damaged, or lacks the tensor.
        """
        parts = [self._read(number, name) for number in range(len(self))]
        if len({(part.dtype, part.shape[1:]) for part in parts}) > 1:
            raise ValueError(
                f"the batches in {self.folder} have {name} of several shapes or types: delete the "
                "folder, and start its run again to write it anew"
            )
        return torch.cat(parts)

    def batches(
        self, name: str, *, first: int = 0, step: int = 1
    ) -> Iterator[tuple[slice, Tensor]]:
        """One tensor, batch by batch: the examples, and their rows ``[rows, …]``.

        Args:
            name: of the tensor.
            first, step: every `step`-th batch from number `first` on; no other is read.
        """
        for number in range(first, len(self), step):
            yield self.rows(number), self._read(number, name)

    def at(self, name: str, indices: Tensor) -> Tensor:
        """One tensor of the examples at `indices` ``[k]``, in that order.

        Batches are read one at a time.
        """
        order = indices.argsort(stable=True)
        batches = indices[order] // self.size
        parts = [
            self._read(number, name)[indices[order][batches == number] - number * self.size]
            for number in batches.unique().tolist()
        ]
        # Without indices, an empty tensor of the right shape.
        rows = torch.cat(parts) if parts else self._read(0, name)[:0]
        return rows[order.argsort()]

    def _names(self) -> list[str]:
        with self._open(0) as file:
            return sorted(file.keys())

    def _read(self, number: int, name: str) -> Tensor:
        file = self._file(number)
        with self._open(number) as opened:
            if name not in opened.keys():  # noqa: SIM118
                raise ValueError(f"{file} has no tensor {name}: name another set")
            tensor: Tensor = opened.get_tensor(name)
        if tensor.ndim == 0 or len(tensor) != self._length(number):
            raise ValueError(
                f"{file} does not have the {self._length(number)} examples of its batch: delete "
                "it, and start its run again to write it anew"
            )
        return tensor

    @contextmanager
    def _open(self, number: int) -> Iterator[Any]:
        file = self._file(number)
        try:
            check_regular(file)
            with safe_open(file, framework="pt") as opened:
                yield opened
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{file} is damaged or missing ({error}): delete it, and start its run again to "
                "write it anew"
            ) from error

    def _length(self, number: int) -> int:
        rows = self.rows(number)
        return int(rows.stop - rows.start)

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"
