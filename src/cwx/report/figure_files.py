"""PNG files of a run inside a page: checked, and reduced if they are large."""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cwx.report.inline_images import data_uri
from cwx.storage.regular_files import read_regular

# Bytes of a file, and pixels, that are decoded at all: decoding takes 4 bytes a pixel, twice.
MAX_FILE_BYTES, MAX_PIXELS = 64 * 2**20, 75_000_000
# A browser shows so many pixels without effort.
MAX_SHOWN_PIXELS = 25_000_000
# Pixels of the reduced copy.
REDUCED_PIXELS = 3_000_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TOO_LARGE = "Too large for this page; see the file."


@dataclass(frozen=True)
class Embedded:
    """A figure inside a page.

    Attributes:
        content: PNG or JPEG; empty if the figure is too large.
        size: width and height in pixels, as embedded.
        note: a remark about a reduced or missing figure.
        decoded: the number of pixels that were decoded to reduce it.
    """

    content: bytes
    size: tuple[int, int]
    note: str = ""
    decoded: int = 0

    @property
    def uri(self) -> str:
        kind = "png" if self.content.startswith(_SIGNATURE) else "jpeg"
        return data_uri(self.content, kind) if self.content else ""


def embed(file: Path, max_bytes: int, max_pixels: int) -> Embedded:
    """A PNG file, unchanged if it has at most `max_bytes`.

    Args:
        max_pixels: that may be decoded to reduce it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a complete PNG file.
    """
    if file.stat().st_size > MAX_FILE_BYTES:
        return Embedded(b"", (0, 0), TOO_LARGE)
    content = read_regular(file, MAX_FILE_BYTES)
    try:
        width, height = _check(content)
    except ValueError as error:
        raise ValueError(f"{file.name} is damaged: {error}") from error
    pixels = width * height
    if len(content) <= max_bytes and pixels <= MAX_SHOWN_PIXELS:
        return Embedded(content, (width, height))
    if pixels > min(MAX_PIXELS, max_pixels):
        return Embedded(b"", (0, 0), TOO_LARGE)
    try:
        reduced, size = _reduced(content)
    except Exception as error:
        # Pillow raises errors of any type for pixels that cannot be decoded.
        raise ValueError(f"{file.name} is damaged: {error}") from error
    if len(reduced) > max_bytes:
        return Embedded(b"", (0, 0), TOO_LARGE, pixels)
    return Embedded(reduced, size, "Reduced copy; the file has full resolution.", pixels)


def _check(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG, whose chunks must be complete, with their checksums.

    Raises:
        ValueError: it is no PNG, or a chunk is damaged or missing.
    """
    if not content.startswith(_SIGNATURE):
        raise ValueError("not a PNG file")
    position, names = len(_SIGNATURE), set()
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        end = position + 8 + length
        name = content[position + 4 : position + 8]
        if end + 4 > len(content):
            break
        (checksum,) = struct.unpack_from(">I", content, end)
        if zlib.crc32(memoryview(content)[position + 4 : end]) != checksum:
            raise ValueError("a checksum is wrong")
        names.add(name)
        position = end + 4
        if name == b"IEND":
            break
    if not {b"IHDR", b"IDAT", b"IEND"} <= names or content[12:16] != b"IHDR":
        raise ValueError("a part is missing")
    width, height = struct.unpack_from(">II", content, 16)
    if not 0 < width < 2**31 > height > 0:
        raise ValueError(f"{width} by {height} pixels")
    return width, height


def _reduced(content: bytes) -> tuple[bytes, tuple[int, int]]:
    """A JPEG of at most `REDUCED_PIXELS` pixels, and its size."""
    with warnings.catch_warnings():
        # The number of pixels is limited already.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            scale = min(1.0, (REDUCED_PIXELS / (image.width * image.height)) ** 0.5)
            size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
            plain = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA")
            rgba = plain.resize(size, Image.Resampling.LANCZOS, reducing_gap=2).convert("RGBA")
    # Figures are shown on white.
    opaque = Image.new("RGB", size, "white")
    opaque.paste(rgba, mask=rgba)
    file = io.BytesIO()
    opaque.save(file, "JPEG", quality=85)
    return file.getvalue(), size
