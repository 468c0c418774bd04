"""Opening a user's files: regular files only.

Opening a named pipe waits for a writer, a device may never end, and libraries crash on folders and
sockets. Readers of files that a user names or that lie in a user's folders open them here.
"""

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, errno.EISDIR, "a folder"),
    (stat.S_ISFIFO, errno.EINVAL, "a named pipe"),
    (stat.S_ISSOCK, errno.EINVAL, "a socket"),
    (stat.S_ISCHR, errno.EINVAL, "a device"),
    (stat.S_ISBLK, errno.EINVAL, "a device"),
)


def check_regular(path: Path) -> os.stat_result:
    """The status of the regular file at `path`; symbolic links are followed.

    Raises:
        OSError: `path` does not exist, cannot be reached, or is not a regular file. ``strerror``
            is the reason in words.
    """
    try:
        status = path.stat()
    except ValueError as error:
        # A null byte, or characters that the file system cannot encode.
        raise FileNotFoundError(errno.ENOENT, f"not a valid path ({error})", str(path)) from None
    _check_mode(path, status.st_mode)
    return status


def open_regular(path: Path) -> BufferedReader:
    """Open the regular file at `path` for reading bytes; never waits.

    Raises:
        OSError: as `check_regular`, or the file cannot be read.
    """
    # Check before opening: opening a device may have effects.
    check_regular(path)
    # A pipe may have replaced the file since: do not wait for its writer, and check again.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of the regular file at `path`.

    Args:
        limit: the maximum size in bytes; a larger file is not read.

    Raises:
        OSError: as `open_regular`, or the file has more than `limit` bytes.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1) if os.fstat(file.fileno()).st_size <= limit else None
    # The size is 0 for some files that the kernel writes on reading: check what was read, too.
    if content is None or len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))
    return content


def read_regular_text(
    path: Path, limit: int, *, encoding: str = "utf-8", errors: str = "strict"
) -> str:
    """The text of the regular file at `path`, with any line ends as ``\\n``.

    Args:
        limit: the maximum size in bytes; a larger file is not read.
        encoding, errors: as in `bytes.decode`.

    Raises:
        OSError: as `read_regular`.
        UnicodeDecodeError: the file is not text of this encoding, with `errors` ``strict``.
    """
    text = read_regular(path, limit).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def digest_regular(path: Path) -> str:
    """The SHA-256 of the bytes of the regular file at `path`, in hexadecimal.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_mode(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    number, kind = next(
        ((number, kind) for test, number, kind in _KINDS if test(mode)),
        (errno.EINVAL, "a special file"),
    )
    error = IsADirectoryError if number == errno.EISDIR else OSError
    raise error(number, f"{kind}, not a regular file", str(path))
