"""Opening one image file: formats, limits of size, orientation, and 8-bit pixels."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import ExifTags, Image, UnidentifiedImageError

from cwx.data.image_formats import FORMATS, describe_content, image_format
from cwx.data.pixel_conversion import (
    Mode,
    PixelError,
    PixelRules,
    StoredPixels,
    flatten,
    is_grey,
    to_8_bits,
)
from cwx.data.resizing import Fit
from cwx.data.stored_images import ImageFile, open_image
from cwx.errors import printable

MAX_PIXELS = 120_000_000
"""The most pixels of an image file; more may be a decompression bomb."""

# Above, an image is reduced before its pixels are converted, which takes several copies.
_MAX_WHOLE = 2**25
# Modes of more than one bit per sample whose neighbouring pixels Pillow averages.
_AVERAGED = ("L", "LA", "La", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "I", "F")

_ORIENTATION = ExifTags.Base.Orientation
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class DecodedImage:
    """The pixels of an image file.

    Attributes:
        image: 8 bits, of the requested mode.
        bits: of a sample in the file: 8 (or less), 12, 16 or 32.
        has_frames: whether the file has further frames or pages, which are not read.
    """

    image: Image.Image
    bits: int
    has_frames: bool


def decode(file: ImageFile, *, mode: Mode, rules: PixelRules, fit: Fit | None) -> DecodedImage:
    """Read the first frame of an image file, turned as its EXIF orientation says.

    Args:
        mode: L for grey, RGB for colour, LA and RGBA with an alpha channel.
        fit: resizes the image to the common size; ``None`` to keep its size.

    Raises:
        ValueError: the file cannot be read, is too large, or its pixels have no clear meaning.
    """
    with _open(file) as image:
        stored = StoredPixels.of(image)
        has_frames = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
        pixels = _upright(image, stored, rules, fit)
        pixels = flatten(pixels, rules, mode)
        return DecodedImage(pixels if fit is None else fit(pixels), stored.bits, has_frames)


def stored_size(file: ImageFile) -> tuple[int, int]:
    """The width and height of an image file in pixels, as stored.

    Raises:
        ValueError: the file cannot be read, or is too large.
    """
    with _open(file) as image:
        return image.size


def is_grey_file(file: ImageFile) -> bool:
    """Whether an image file is stored without colour.

    Raises:
        ValueError: the file cannot be read.
    """
    with _open(file) as image:
        return is_grey(image, StoredPixels.of(image))


@contextmanager
def _open(file: ImageFile) -> Iterator[Image.Image]:
    """An image whose size is within limits, with errors that name the file."""
    try:
        with open_image(file) as stream, warnings.catch_warnings():
            # Pillow warns about large images, which are refused here, and about odd metadata.
            warnings.simplefilter("ignore")
            with Image.open(stream, formats=FORMATS) as image:
                _check_size(image)
                yield image
    except PixelError as error:
        raise ValueError(f"{printable(file)} {error}") from error
    except Exception as error:
        # Pillow's readers may raise anything on damaged files.
        raise ValueError(
            f"{printable(file)} cannot be read as an image ({_reason(file, error)}): replace or "
            "remove it"
        ) from error


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise PixelError(
            f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}, and may be a "
            "decompression bomb: make it smaller"
        )


def _reason(file: ImageFile, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        name = image_format(file)
        kind = f"a damaged {name}, or of a kind of {name} that is not read"
        return f"it is {kind if name else describe_content(file)}"
    reason = getattr(error, "strerror", None) or str(error).splitlines()[:1]
    return printable(reason if isinstance(reason, str) else "".join(reason) or type(error).__name__)


def _upright(
    image: Image.Image, stored: StoredPixels, rules: PixelRules, fit: Fit | None
) -> Image.Image:
    """The pixels of 8 bits per sample, with their transparency, turned upright."""
    factor = _prepare_reduction(image, fit)
    image.load()
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    # Averages of palette entries or of a transparent colour mean nothing.
    reduces_first = stored.mode in _AVERAGED and stored.transparency is None
    if factor > 1 and reduces_first:
        image = image.reduce(factor)
    image = to_8_bits(image, stored, rules)
    if factor > 1 and not reduces_first:
        image = image.reduce(factor)
    return image if turn is None else image.transpose(turn)


def _prepare_reduction(image: Image.Image, fit: Fit | None) -> int:
    """The integer factor by which a large image is reduced after it is loaded; 1 for others."""
    pixels = image.width * image.height
    if pixels <= _MAX_WHOLE:
        return 1
    factor = min(image.size) // (2 * fit.minimum) if fit is not None else 0
    if pixels > _MAX_WHOLE * factor**2:
        raise PixelError(
            f"has {image.width} x {image.height} pixels, too many for the size of the images in "
            "memory: resize it, or set a small data.source.size"
        )
    # The decoder of JPEG reduces while it decodes.
    width, height = image.size
    image.draft(None, (width // factor, height // factor))
    return max(1, factor * min(image.size) // min(width, height))
