"""Where encoded images are: in files of their own, or inside larger files, which contain them."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from cwx.storage.regular_files import check_regular, digest_regular, open_regular


class StoredImage(Protocol):
    """An encoded image inside a larger file. As text, it names both, for messages."""

    @property
    def suffix(self) -> str:
        """The end of its name with the dot, such as ``.png``; empty if it has none."""

    def open(self) -> IO[bytes]:
        """Its bytes.

        Raises:
            OSError: they cannot be read. ``strerror`` is the reason in words.
        """

    def status(self) -> tuple[int, int]:
        """Its size in bytes or 0, and a number in 0 to 2^63 - 1 that changes with the larger file.

        Raises:
            OSError: the larger file cannot be reached.
        """


ImageFile = Path | StoredImage
"""An encoded image: a file, or a part of a larger file."""

LabelledFiles = Sequence[tuple[ImageFile, int]]
"""Encoded images, each with its class index."""


def open_image(file: ImageFile) -> IO[bytes]:
    """Open an encoded image for reading bytes.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    return open_regular(file) if isinstance(file, Path) else file.open()


def image_status(file: ImageFile) -> tuple[int, int]:
    """The size of an encoded image in bytes, and the time of its last change in nanoseconds.

    Of a `StoredImage`, its stamp in place of the time.

    Raises:
        OSError: the file cannot be reached.
    """
    if not isinstance(file, Path):
        return file.status()
    status = check_regular(file)
    return status.st_size, status.st_mtime_ns


def image_digest(file: ImageFile) -> bytes:
    """The SHA-256 of the bytes of an encoded image.

    Raises:
        OSError: they cannot be read.
    """
    if isinstance(file, Path):
        return bytes.fromhex(digest_regular(file))
    with file.open() as stream:
        return hashlib.sha256(stream.read()).digest()


class ImageContainer(Protocol):
    """A set of encoded images, which have names in it.

    Attributes:
        root: its folder, or a path that stands for it, for messages and the manifest.
        checks_content: whether an image is compared with its digest whenever it is decoded, since
            its status does not tell of changes during a run.
    """

    @property
    def root(self) -> Path: ...

    @property
    def checks_content(self) -> bool: ...

    def name(self, file: ImageFile) -> bytes:
        """The name of an image, without null bytes: a part of the identity of the data."""

    def pack(self, file: ImageFile) -> bytes:
        """All that `unpack` needs to give this image again."""

    def unpack(self, packed: bytes) -> ImageFile:
        """The inverse of `pack`."""


@dataclass(frozen=True)
class Folder:
    """Image files in a folder and in its subfolders (see `ImageContainer`)."""

    root: Path
    checks_content = False

    def name(self, file: ImageFile) -> bytes:
        assert isinstance(file, Path)
        return os.fsencode(file.relative_to(self.root))

    def pack(self, file: ImageFile) -> bytes:
        return self.name(file)

    def unpack(self, packed: bytes) -> ImageFile:
        return self.root / os.fsdecode(packed)
