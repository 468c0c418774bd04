"""The lock of a run's folder, held by the process that writes it and released when it ends."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cwx.storage.atomic import WriteError
from cwx.storage.run_files import LOCK

log = logging.getLogger(__name__)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` in the block; the system releases it if the process dies.

    Raises:
        ValueError: another process holds the lock.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Wait longer than `is_written` holds the lock.
        lock.acquire(timeout=2)
    except OSError as error:
        if not isinstance(error, Timeout):
            raise WriteError(folder / LOCK, error) from error
        raise ValueError(
            f"another process is writing {folder}: wait for it or stop it, then continue with "
            f"resume={folder}"
        ) from None
    try:
        yield
    finally:
        lock.release()


def acquire(lock: FileLock, waiting: str) -> None:
    """Acquire a lock, also if another process holds it for long.

    Args:
        waiting: log line, if the lock is not free.
    """
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s", waiting)
        lock.acquire()


def is_written(folder: Path) -> bool:
    """Whether a process is writing `folder` now.

    If not, a run with the status ``running`` was killed.
    """
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
