"""The entries of a store, the runs that used them, and deleting old ones; without torch.

A store is a folder of entries (`cwx.storage.trajectories`, `cwx.storage.shards`). An entry is a
folder, named by the digest of its identity. Its file ``uses.json`` lists the runs that used the
entry, each with the time of its last use.
"""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cwx.storage.atomic import temporary_for, write_json
from cwx.storage.json_files import parse_json, read_object
from cwx.storage.locks import is_written
from cwx.storage.regular_files import open_regular

USES = "uses.json"
LOCK = "lock"
_IDENTITY, _COMPLETE = "identity.json", "complete.json"
_NAME = re.compile(r"[0-9a-f]{20}")
_OWN = re.compile(
    r"identity\.json|complete\.json|uses\.json|lock"
    r"|state-\d{4,}\.safetensors|shard-\d{5,}\.safetensors|checkpoint-[0-9a-f]{8}\.ckpt"
    r"|statistics\.safetensors"
)
_CHECKPOINT = re.compile(r"checkpoint-[0-9a-f]{8}\.ckpt")
# In bytes; the header for a few hundred tensors is much shorter.
_MAX_HEADER = 10_000_000


class NotPrunableError(Exception):
    """An entry may not be deleted; the message gives the reason."""


@dataclass(frozen=True)
class Entry:
    """One folder of a store.

    Attributes:
        path: the folder.
        files: the status of its files, by name, when it was read.
    """

    path: Path
    files: Mapping[str, os.stat_result]

    @classmethod
    def read(cls, path: Path) -> "Entry":
        """The current entry at `path`; without files if `path` is not a folder, or is a link."""
        try:
            is_folder = stat.S_ISDIR(path.lstat().st_mode)
            names = os.listdir(path) if is_folder else []  # noqa: PTH208
            return cls(path, {name: (path / name).lstat() for name in names})
        except OSError:
            return cls(path, {})

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        return _json(self.path / _IDENTITY)

    @cached_property
    def complete(self) -> Mapping[str, Any]:
        return _json(self.path / _COMPLETE)

    @property
    def size(self) -> int:
        """The total size in bytes."""
        return sum(status.st_size for status in self.files.values())

    @property
    def last_used(self) -> float:
        """The time of the last write or use, in seconds since 1970."""
        # Testing the lock may create its file: ignore that file if there are others.
        times = {name: status.st_mtime for name, status in self.files.items()}
        without_lock = [time for name, time in times.items() if name != LOCK]
        return max(without_lock or times.values(), default=0.0)

    @property
    def uses(self) -> Mapping[str, Mapping[str, Any]]:
        """The runs that used it, by folder: the time ``last``, and descriptions of the run."""
        uses = _json(self.path / USES)
        return {run: use for run, use in uses.items() if isinstance(use, Mapping)}

    @property
    def accuracy(self) -> float | None:
        """Test accuracy of the last state, in 0-1; ``None`` if unknown."""
        epochs = self.complete.get("epochs")
        if not (isinstance(epochs, list) and epochs and type(epochs[-1]) is int):
            return None
        header = _header(self.path / f"state-{epochs[-1]:04d}.safetensors")
        try:
            value = float(header["__metadata__"]["accuracy"])
        except (KeyError, TypeError, ValueError):
            return None
        return value if 0 <= value <= 1 else None

    def foreign_reason(self) -> str | None:
        """The reason why the store did not write this folder; ``None`` if it did."""
        if not _NAME.fullmatch(self.path.name) or not self.files:
            return "it is not a folder of the store"
        for name, status in self.files.items():
            if not _OWN.fullmatch(temporary_for(name) or name):
                return f"it contains {name}, which no store writes"
            if not stat.S_ISREG(status.st_mode):
                return f"it contains {name}, which is not a regular file"
        # A process that was killed early leaves only a lock and uses.
        if not self.identity and not set(self.files) - {LOCK, USES}:
            return None
        if digest(self.identity) != self.path.name:
            return f"its name is not the digest of its {_IDENTITY}"
        return None

    def is_locked(self) -> bool:
        """Whether a process writes it, or waits to write it."""
        if LOCK not in self.files:
            return False
        try:
            with _hold_lock(self.path):
                return False
        except NotPrunableError:
            return True

    def running_user(self) -> str | None:
        """The folder of a running run that uses it; ``None`` if no such run is known."""
        return next((run for run in self.uses if _is_running(Path(run))), None)


def digest(identity: Mapping[str, Any]) -> str:
    """The name of the folder for this identity: 20 hexadecimal digits of a SHA-256."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def entries(root: Path) -> list[Entry]:
    """All entries of a store, the last used first."""
    all_entries = [Entry.read(root / name) for name in os.listdir(root) if _NAME.fullmatch(name)]  # noqa: PTH208
    return sorted((e for e in all_entries if e.files), key=lambda entry: -entry.last_used)


def record_use(path: Path, run: Path, description: Mapping[str, Any]) -> None:
    """Record in an entry that `run` uses it; the caller holds the lock of the entry."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    uses = _json(path / USES)
    write_json(path / USES, {**uses, str(run.absolute()): {"last": now, **description}})


def remove_leftovers(path: Path) -> None:
    """Remove the files in an entry that killed processes left and nothing reads any more.

    These are temporary files, and in a complete entry the checkpoints of its training. The caller
    holds the lock of the entry.
    """
    files = Entry.read(path).files
    is_complete = _COMPLETE in files
    for name in files:
        if temporary_for(name) or (is_complete and _CHECKPOINT.fullmatch(name)):
            # Another user's file may not be removable: it takes space, and does no other harm.
            with suppress(OSError):
                (path / name).unlink()


def check_prunable(entry: Entry, *, older_than: float) -> None:
    """Check that an entry may be deleted.

    Args:
        older_than: seconds since the last use.

    Raises:
        NotPrunableError: the store did not write the entry, it is in use, or it was used in the
            last `older_than` seconds.
    """
    if reason := entry.foreign_reason():
        raise NotPrunableError(reason)
    if time.time() - entry.last_used < older_than:
        raise NotPrunableError("used too recently")
    if entry.is_locked():
        raise NotPrunableError("being written")
    if run := entry.running_user():
        raise NotPrunableError(f"in use by {run}")


def prune(path: Path, *, older_than: float) -> int:
    """Delete an entry, file by file, under its lock.

    Args:
        older_than: seconds since the last use.

    Returns:
        The number of bytes freed.

    Raises:
        NotPrunableError: as `check_prunable`.
        OSError: a file could not be deleted.
    """
    check_prunable(Entry.read(path), older_than=older_than)
    with _hold_lock(path):
        # Check again under the lock, all but the lock itself.
        entry = Entry.read(path)
        if reason := entry.foreign_reason():
            raise NotPrunableError(reason)
        if time.time() - entry.last_used < older_than or entry.running_user():
            raise NotPrunableError("it has just been used")
        # Completeness first, ownership last: an interruption leaves a prunable, incomplete entry.
        last = [name for name in (_IDENTITY, LOCK) if name in entry.files]
        first = [name for name in (_COMPLETE,) if name in entry.files]
        for name in [*first, *(n for n in entry.files if n not in (*first, *last)), *last]:
            (path / name).unlink()
        path.rmdir()
    return entry.size


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError) as error:
        raise NotPrunableError("being written") from error
    try:
        yield
    finally:
        lock.release()


def _is_running(run: Path) -> bool:
    try:
        return is_written(run)
    except OSError:
        # The lock belongs to another user and cannot be tested.
        return True


def _json(file: Path) -> Mapping[str, Any]:
    try:
        return read_object(file)
    except (OSError, ValueError):
        return {}


def _header(file: Path) -> Mapping[str, Any]:
    """The header of a safetensors file; empty if it cannot be read."""
    try:
        with open_regular(file) as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = parse_json(opened.read(length).decode()) if length <= _MAX_HEADER else {}
    except (OSError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}
