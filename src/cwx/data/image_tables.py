"""Encoded images in the rows of tables of the package `datasets`, which maps files into memory."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cwx.data.stored_images import ImageFile

# Bytes of one image: more are no image that is read.
_MAX_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The column of images of one split.

    Attributes:
        root: the data set, for messages.
        split: the name of the split.
        column: the name of the column.
        rows: a `datasets.Dataset` of this column alone, whose images are not decoded.
        stamp: a number in 0 to 2^63 - 1 that was another if the files were.
    """

    root: Path
    split: str
    column: str
    rows: Any
    stamp: int

    def read(self, row: int) -> tuple[bytes, str]:
        """The bytes of an image, and its file name; empty if it has none.

        Raises:
            OSError: the row has no bytes, or too many.
        """
        value: Any = self.rows[row][self.column]
        name = ""
        if isinstance(value, dict):
            name, value = value.get("path") or "", value.get("bytes")
        if value is None and name:
            # A path may lead anywhere.
            raise OSError(
                errno.EINVAL, "the row names a file instead of holding the bytes of the image", name
            )
        if not isinstance(value, bytes):
            raise OSError(errno.EINVAL, "the row has no bytes of an image", str(self))
        if len(value) > _MAX_BYTES:
            raise OSError(errno.EFBIG, f"larger than {_MAX_BYTES:,} bytes", str(self))
        return value, name


@dataclass(frozen=True, slots=True, eq=False)
class TableImage:
    """The image in a row of a table, see `StoredImage`."""

    table: ImageTable
    row: int

    def __str__(self) -> str:
        return f"row {self.row} of {self.table.split} in {self.table.root}"

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.table.read(self.row)[1]).suffix

    def open(self) -> IO[bytes]:
        return BytesIO(self.table.read(self.row)[0])

    def status(self) -> tuple[int, int]:
        # Only reading the row tells its size.
        return 0, self.table.stamp


@dataclass(frozen=True)
class ImageTables:
    """The tables of a data set by split, as a container of images (see `ImageContainer`)."""

    root: Path
    tables: Mapping[str, ImageTable]
    checks_content = True

    def name(self, file: ImageFile) -> bytes:
        assert isinstance(file, TableImage)
        return f"{file.table.split}/{file.row}".encode()

    def pack(self, file: ImageFile) -> bytes:
        return self.name(file)

    def unpack(self, packed: bytes) -> ImageFile:
        split, _, row = packed.decode().rpartition("/")
        return TableImage(self.tables[split], int(row))
