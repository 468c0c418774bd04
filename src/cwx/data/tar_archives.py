"""The members of tar archives, read at their places: nothing is extracted.

An archive may come from anybody. The names of its members are text and never paths, and what is not
a regular member is refused.
"""

import errno
import hashlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, cast

from cwx.data.stored_images import ImageFile
from cwx.errors import printable
from cwx.storage.regular_files import check_regular, open_regular

# Bytes of one member: more are no image that is read.
_MAX_BYTES = 2**30
_BLOCK = 512
# Bytes of a header with a long name or with further fields.
_MAX_HEADER = 2**20
# Writers fill an archive with zeros to a multiple of their block, by default of 10 KiB.
_MAX_PADDING = 2**20
_COMPRESSED = (
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"BZh", "bzip2", "bunzip2"),
    (b"\xfd7zXZ\0", "xz", "unxz"),
    (b"(\xb5/\xfd", "zstd", "unzstd"),
    (b"\x04\x22\x4d\x18", "lz4", "unlz4"),
)


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A regular member of an uncompressed tar archive (see `StoredImage`).

    Attributes:
        archive: the archive.
        name: in the archive.
        offset: of the first byte of the content in the archive.
        size: of the content, in bytes.
    """

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} in {self.archive}"

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def open(self) -> IO[bytes]:
        with open_regular(self.archive) as stream:
            return BytesIO(read_content(stream, self))

    def status(self) -> tuple[int, int]:
        status = check_regular(self.archive)
        key = repr((status.st_size, status.st_mtime_ns, self.offset)).encode()
        stamp = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
        return self.size, stamp


def read_content(stream: IO[bytes], member: ArchiveMember) -> bytes:
    """The content of a member, from its open archive.

    Raises:
        OSError: the archive is too short.
    """
    stream.seek(member.offset)
    content = stream.read(member.size)
    if len(content) < member.size:
        raise OSError(errno.EIO, "the archive is too short", str(member.archive))
    return content


@dataclass(frozen=True)
class Archives:
    """Tar archives in a folder, as a container of images (see `ImageContainer`)."""

    root: Path
    checks_content = False

    def name(self, file: ImageFile) -> bytes:
        assert isinstance(file, ArchiveMember)
        return os.fsencode(file.archive.relative_to(self.root)) + b"/" + _encoded(file.name)

    def pack(self, file: ImageFile) -> bytes:
        assert isinstance(file, ArchiveMember)
        archive = os.fsencode(file.archive.relative_to(self.root))
        return b"\0".join((archive, b"%d %d" % (file.offset, file.size), _encoded(file.name)))

    def unpack(self, packed: bytes) -> ImageFile:
        archive, place, name = packed.split(b"\0")
        offset, size = map(int, place.split())
        return ArchiveMember(self.root / os.fsdecode(archive), _decoded(name), offset, size)


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


class _Headers:
    """A stream of which tarfile reads headers: their content is bounded."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.seek, self.tell, self._stream = stream.seek, stream.tell, stream

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._stream.read(size)


def members(archive: Path, stream: IO[bytes]) -> Iterator[ArchiveMember]:
    """The regular members of an open tar archive, in their order; folders are left out.

    Raises:
        ValueError: the archive is compressed, truncated or damaged, or has a member that is a link,
            a device, sparse or too large, or whose name is no text.
    """
    _check_plain(archive, stream)
    try:
        # It has nothing to close but the stream.
        tar = tarfile.open(  # noqa: SIM115
            fileobj=cast(IO[bytes], _Headers(stream)),
            mode="r:",
            encoding="utf-8",
            errors="surrogateescape",
        )
        end = 0
        while (entry := tar.next()) is not None:
            # tarfile keeps all entries, which may be millions.
            tar.members = []  # type: ignore[attr-defined]
            if entry.offset < end:
                raise tarfile.ReadError("a member has a size below 0")
            end = entry.offset + _BLOCK
            if not entry.isdir():
                yield _member(archive, entry)
    except (tarfile.TarError, OverflowError) as error:
        raise _damaged(archive, str(error) or type(error).__name__) from error
    _check_end(archive, stream, tar.offset)


def _member(archive: Path, entry: tarfile.TarInfo) -> ArchiveMember:
    place = f"{printable(archive)} has a member {printable(entry.name)}"
    if not entry.isreg() or entry.issparse():
        kind = "a link" if entry.issym() or entry.islnk() else "a device, a pipe or a sparse file"
        raise ValueError(f"{place}, which is {kind}: pack regular files only")
    if not 0 <= entry.size <= _MAX_BYTES:
        raise ValueError(
            f"{place} of {entry.size:,} bytes, more than {_MAX_BYTES:,}: pack smaller files"
        )
    if "\0" in entry.name:
        raise ValueError(f"{place}, whose name has a null byte: rename it")
    try:
        _encoded(entry.name)
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}, whose name is no text: rename it") from error
    return ArchiveMember(archive, entry.name, entry.offset_data, entry.size)


def _check_plain(archive: Path, stream: IO[bytes]) -> None:
    start = stream.read(_BLOCK)
    stream.seek(0)
    for signature, kind, program in _COMPRESSED:
        if start.startswith(signature):
            raise ValueError(
                f"{printable(archive)} is compressed with {kind}, so that its members cannot be "
                f"read in any order: make a plain tar archive of it, such as with {program}"
            )


def _check_end(archive: Path, stream: IO[bytes], end: int) -> None:
    """Refuse an archive without its end mark: tarfile stops at damaged headers without a word.

    Args:
        end: the place after the last member that was read.
    """
    rest = stream.seek(0, os.SEEK_END) - end
    if rest > _MAX_PADDING:
        raise _damaged(archive, f"{rest:,} bytes follow the last member that can be read")
    stream.seek(end)
    content = stream.read()
    if len(content) < _BLOCK or content.strip(b"\0"):
        raise _damaged(archive, "there is no end mark after the last member that can be read")


def _damaged(archive: Path, reason: str) -> ValueError:
    return ValueError(
        f"{printable(archive)} is truncated, damaged or no tar archive ({printable(reason)}): copy "
        "or pack it again"
    )
