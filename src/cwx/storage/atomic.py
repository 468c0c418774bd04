"""Atomic writing: a file is complete, or it does not exist.

Only `write_tensors` imports torch, so that light commands start fast.
"""

import errno
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


# The names of temporary files, such as .status.json.a1b2c3d4.part.
_PART = re.compile(r"\.(.+)\.\w+\.part")
# Of a run and of an entry of a store.
_LOCKS = frozenset({".lock", "lock"})
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space or raise the quota",
    errno.EFBIG: "raise the limit of the size of files (ulimit -f)",
    errno.EROFS: "make the disk writable, or choose another folder",
    errno.EACCES: "make the folder writable, or choose another",
    errno.EPERM: "make the folder writable, or choose another",
    errno.EIO: "check the disk",
}


class WriteError(OSError):
    """A file could not be written: names the file, the reason and the remedy."""

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror, str(path))
        self.path = path

    def __str__(self) -> str:
        remedy = _REMEDIES.get(self.errno or 0, "make it writable")
        return f"{self.path} could not be written ({self.strerror}): {remedy}"


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Write a temporary file, which replaces `path` only when it is complete and on disk.

    After an exception, a full disk or a killed process, an existing file at `path` is unchanged.

    Raises:
        WriteError: the system refuses to write the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part"
        )
    except OSError as error:
        raise WriteError(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Temporary files are private (0600); restore the usual permissions.
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        # An error on removal must not hide the first one.
        with suppress(OSError):
            Path(name).unlink(missing_ok=True)
        if cause := _system_error(error):
            raise WriteError(path, cause) from error
        raise


def temporary_for(name: str) -> str | None:
    """The name of the file for which `atomic` has made the temporary file `name`.

    ``None`` if `name` is no temporary file. A process that is killed while it writes leaves one.
    """
    match = _PART.fullmatch(name)
    return match[1] if match else None


def remove_temporary(folder: Path) -> None:
    """Remove the temporary files of killed processes from `folder` and the folders in it.

    The caller holds the lock of `folder`. Left alone are folders in it with a lock of their own,
    and pages, which a command may be writing.
    """
    for inner, folders, names in os.walk(folder):
        if inner != str(folder) and _LOCKS.intersection(names):
            folders.clear()
            continue
        for name in names:
            target = temporary_for(name)
            if target and not target.endswith(".html"):
                with suppress(OSError):
                    Path(inner, name).unlink()


def remove_temporary_of(path: Path) -> None:
    """Remove the temporary files that killed processes left of `path`; the caller locks it."""
    for file in path.parent.iterdir():
        if temporary_for(file.name) == path.name:
            file.unlink(missing_ok=True)


def _system_error(error: BaseException) -> OSError | None:
    """The error of the system behind an exception; other libraries wrap it in their own."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.errno is not None:
            return None if isinstance(chain, WriteError) else chain
        chain = chain.__cause__ or chain.__context__
    return None


def write_bytes(path: Path, content: bytes) -> None:
    with atomic(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write standard JSON: numbers that are not finite become null."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> None:
    """Write named tensors as safetensors."""
    write_bytes(path, tensor_bytes(tensors, metadata))


def tensor_bytes(tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file with named tensors."""
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(contiguous, metadata=dict(metadata))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
