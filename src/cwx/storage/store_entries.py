"""What a store holds, who used it and when, and how some of it is given up: without torch.

A store is a folder of entries (`cwx.storage.trajectories`, `cwx.storage.shards`), each a folder
named by the digest of what it holds. Beside that, ``uses.json`` in an entry has the runs that took
it, and when last.
"""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cwx.storage.atomic import write_json
from cwx.storage.locks import is_written

USES = "uses.json"
LOCK = "lock"
_IDENTITY, _COMPLETE = "identity.json", "complete.json"
_NAME = re.compile(r"[0-9a-f]{20}")
_OWN = re.compile(
    r"identity\.json|complete\.json|uses\.json|lock"
    r"|state-\d{4,}\.safetensors|shard-\d{5,}\.safetensors|checkpoint-[0-9a-f]{8}\.ckpt"
)
# Left by a process that was killed while it wrote one of these (cwx.storage.atomic).
_PART = re.compile(r"\.(.+)\.\w+\.part")
# No header of a few hundred tensors is as long.
_LONGEST_HEADER = 10_000_000


class KeptError(Exception):
    """An entry is not given up; the message says why."""


@dataclass(frozen=True)
class Entry:
    """One folder of a store, as it lies there.

    Attributes:
        path: the folder.
        files: what it holds, by name.
    """

    path: Path
    files: Mapping[str, os.stat_result]

    @classmethod
    def read(cls, path: Path) -> "Entry":
        """What is there now; an entry of no files if it is no folder, or a link."""
        try:
            found = path.lstat()
            names = os.listdir(path) if stat.S_ISDIR(found.st_mode) else []  # noqa: PTH208
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
        """Bytes."""
        return sum(found.st_size for found in self.files.values())

    @property
    def last_used(self) -> float:
        """Seconds since 1970 at which it was last written or taken."""
        # Who looks whether it is locked may make the lock.
        told = [found.st_mtime for name, found in self.files.items() if name != LOCK]
        return max(told or [found.st_mtime for found in self.files.values()], default=0.0)

    @property
    def uses(self) -> Mapping[str, Mapping[str, Any]]:
        """The runs that took it, by folder: ``last``, and what was said about them."""
        found = _json(self.path / USES)
        return {run: use for run, use in found.items() if isinstance(use, Mapping)}

    @property
    def accuracy(self) -> float | None:
        """Test accuracy of the last state, in 0-1, where it is known."""
        epochs = self.complete.get("epochs")
        if not (isinstance(epochs, list) and epochs and isinstance(epochs[-1], int)):
            return None
        header = _header(self.path / f"state-{epochs[-1]:04d}.safetensors")
        try:
            value = float(header["__metadata__"]["accuracy"])
        except (KeyError, TypeError, ValueError):
            return None
        return value if 0 <= value <= 1 else None

    def foreign(self) -> str | None:
        """Why it is not the store's own, in words; ``None`` if it is."""
        if not _NAME.fullmatch(self.path.name) or not self.files:
            return "it is no folder of the store"
        for name, found in self.files.items():
            part = _PART.fullmatch(name)
            if not _OWN.fullmatch(part[1] if part else name):
                return f"it holds {name}, which no store writes"
            if not stat.S_ISREG(found.st_mode):
                return f"{name} in it is no plain file"
        # What a process left that came to nothing is told by having nothing.
        if not self.identity and not set(self.files) - {LOCK, USES}:
            return None
        if digest(self.identity) != self.path.name:
            return f"its name is not that of its {_IDENTITY}"
        return None

    def is_locked(self) -> bool:
        """Whether a process makes it, or waits to."""
        if LOCK not in self.files:
            return False
        try:
            with _held(self.path):
                return False
        except KeptError:
            return True

    def taken_by(self) -> str | None:
        """A run that has taken it and is still going on, as far as it can be known."""
        return next((run for run in self.uses if _is_running(Path(run))), None)


def digest(identity: Mapping[str, Any]) -> str:
    """The name of the folder that holds what has this identity."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def entries(root: Path) -> list[Entry]:
    """All that a store has, in order of last use, the latest first."""
    found = [Entry.read(root / name) for name in os.listdir(root) if _NAME.fullmatch(name)]  # noqa: PTH208
    return sorted((e for e in found if e.files), key=lambda entry: -entry.last_used)


def note_use(path: Path, run: Path, about: Mapping[str, Any]) -> None:
    """Note in an entry, whose lock is held, that `run` takes it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    uses = _json(path / USES)
    write_json(path / USES, {**uses, str(run.absolute()): {"last": now, **about}})


def check_prunable(entry: Entry, *, older_than: float) -> None:
    """Refuse what is not the store's own, is in use, or was used in the last seconds.

    Raises:
        KeptError: with the reason.
    """
    if why := entry.foreign():
        raise KeptError(why)
    if time.time() - entry.last_used < older_than:
        raise KeptError("used too lately")
    if entry.is_locked():
        raise KeptError("being made")
    if run := entry.taken_by():
        raise KeptError(f"in use by {run}")


def prune(path: Path, *, older_than: float) -> int:
    """Delete an entry, file by file, while no other process can make it or take it.

    Returns:
        How many bytes that frees.

    Raises:
        KeptError: as `check_prunable`.
        OSError: a file could not be deleted.
    """
    check_prunable(Entry.read(path), older_than=older_than)
    with _held(path):
        # As it is under the lock; the lock itself has just been looked at.
        entry = Entry.read(path)
        if why := entry.foreign():
            raise KeptError(why)
        if time.time() - entry.last_used < older_than or entry.taken_by():
            raise KeptError("it has just been used")
        # First what makes it whole, last what makes it the store's own.
        last = [name for name in (_IDENTITY, LOCK) if name in entry.files]
        first = [name for name in (_COMPLETE,) if name in entry.files]
        for name in [*first, *(n for n in entry.files if n not in (*first, *last)), *last]:
            (path / name).unlink()
        path.rmdir()
    return entry.size


@contextmanager
def _held(path: Path) -> Iterator[None]:
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError) as error:
        raise KeptError("being made") from error
    try:
        yield
    finally:
        lock.release()


def _is_running(run: Path) -> bool:
    try:
        return is_written(run)
    except OSError:
        # Of another user, whose lock cannot be tried.
        return True


def _json(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _header(file: Path) -> Mapping[str, Any]:
    """The header of a safetensors file, which tells of the tensors after it."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            found = json.loads(opened.read(length)) if length <= _LONGEST_HEADER else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
