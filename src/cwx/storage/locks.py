"""Who writes a run's folder: a lock that its process holds, however that ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cwx.storage.run_files import LOCK


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the right to write `folder`, which ends with this process if not before.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        # Longer than `is_written` takes to look.
        lock.acquire(timeout=2)
    except Timeout:
        raise ValueError(
            f"another process is writing {folder}: wait for it, or stop it, and then continue "
            f"with resume={folder}"
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_written(folder: Path) -> bool:
    """Whether a process is writing `folder` now.

    If none is, a status of running is that of a run which was cut.
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
