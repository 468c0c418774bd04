"""Converting images of any mode of Pillow into opaque 8-bit grey or colour.

Values keep their meaning: 0 stays black and the white of the file becomes 255. What is ambiguous
is refused: floats outside 0-1, integers of 32 bits, and transparency without a background.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

_WHITE_16 = 65535
# The tag of a TIFF file that says whether 0 is white.
_PHOTOMETRIC = 262
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La", "I", "F", *_SIXTEEN)
_COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_PALETTE = ("P", "PA")
_MODES_8_BITS = {
    **{"1": "L", "L": "L", "LA": "LA", "La": "LA"},
    **{"RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA"},
}


Mode = Literal["L", "LA", "RGB", "RGBA"]
"""Modes of Pillow for grey and colour, each without and with an alpha channel, of 8 bits."""


class PixelError(ValueError):
    """Pixels without a clear meaning; the message goes on after the name of the file."""


@dataclass(frozen=True)
class PixelRules:
    """What the user says about pixels whose meaning the file does not tell.

    Attributes:
        background: the colour behind transparent pixels, as CSS names it, such as ``white`` or
            ``#808080``; ``None`` to refuse images with transparent pixels.
        white_level: the value of white in files of 16-bit or 32-bit integers or floats, such as
            4095 for a camera of 12 bits; ``None`` for 65535 in 16 bits and 1 in floats, and to
            refuse integers of 32 bits.
        setting: what the names of both settings begin with; empty if nobody can set them.

    Raises:
        ValueError: `background` is no opaque colour, or `white_level` is not finite or not
            above 0.
    """

    background: str | None = None
    white_level: float | None = None
    setting: str = ""

    def __post_init__(self) -> None:
        if self.background is not None:
            self.colour()
        level = self.white_level
        # Comparisons with NaN are false.
        if level is not None and not 0 < level < float("inf"):
            raise ValueError(
                f"{self.setting}white_level is {level}: give the finite value above 0 that is "
                "white, such as 4095 or 65535, or null"
            )

    def colour(self) -> tuple[int, ...]:
        """The background as red, green and blue in 0-255."""
        try:
            colour: tuple[int, ...] = ImageColor.getrgb(str(self.background))
        except ValueError:
            colour = ()
        if len(colour) != 3:
            raise ValueError(
                f"{self.setting}background is {self.background!r}: give an opaque colour such as "
                "white, black or #808080, or null"
            )
        return colour

    def remedy(self, name: str, value: str) -> str:
        """How the user sets `name`, for a message; empty if this is not possible."""
        return f"set {self.setting}{name} to {value}, or " if self.setting else ""


@dataclass(frozen=True)
class StoredPixels:
    """How a file stores its pixels, which Pillow forgets as soon as it changes an image.

    Attributes:
        mode: of Pillow, such as ``RGB`` or ``I;16``.
        raw: how Pillow unpacks the pixels, such as ``RGB;16B``.
        file_format: Pillow's name of the format.
        transparency: the transparent palette entries, grey or colour; ``None`` for none.
        is_inverted: whether 0 is white; Pillow inverts 8 bits and less.
        names_inks: whether a CMYK file tells if its inks are inverted.
    """

    mode: str
    raw: str
    file_format: str
    transparency: Any
    is_inverted: bool
    names_inks: bool

    @classmethod
    def of(cls, image: Image.Image) -> "StoredPixels":
        """Of an image that is open and not loaded yet."""
        tiles = getattr(image, "tile", None) or [(None, None, None, "")]
        arguments = tiles[0][3]
        raw = arguments if isinstance(arguments, str) else (arguments or [""])[0]
        tags = getattr(image, "tag_v2", {})
        is_jpeg = image.format in ("JPEG", "MPO")
        return cls(
            mode=image.mode,
            raw=raw if isinstance(raw, str) else "",
            file_format=image.format or "",
            transparency=image.info.get("transparency"),
            is_inverted=tags.get(_PHOTOMETRIC) == 0,
            names_inks=not is_jpeg or "adobe" in image.info,
        )

    @property
    def bits(self) -> int:
        """Of one sample: 8 (or less), 12, 16 or 32."""
        if self.mode in ("I", "F"):
            # Pillow scales the integers of Netpbm to 16 bits.
            return 16 if self.mode == "I" and self.file_format == "PPM" else 32
        return 12 if self.raw == "I;12" else 16 if ";16" in self.mode + self.raw else 8


def is_grey(image: Image.Image, stored: StoredPixels) -> bool:
    """Whether an image is stored without colour; a palette counts by its colours."""
    if stored.mode in _PALETTE:
        colours = np.asarray(image.convert("RGB"))
        return bool((colours == colours[..., :1]).all())
    # Pillow gives 16-bit grey with alpha as colour.
    return stored.mode in _GREY or stored.raw.startswith("LA;")


def to_8_bits(image: Image.Image, stored: StoredPixels, rules: PixelRules) -> Image.Image:
    """`image` with samples of 8 bits: L, LA, RGB or RGBA, with the transparency of the file.

    Raises:
        PixelError: the values have no clear meaning.
    """
    if stored.mode in (*_SIXTEEN, "I", "F"):
        return _scale(image, stored, rules)
    if stored.mode not in (*_GREY, *_COLOUR, *_PALETTE):
        raise PixelError(f"has pixels of mode {stored.mode}, which is not read: save it as RGB")
    if stored.mode == "CMYK" and not stored.names_inks:
        raise PixelError(
            "is a CMYK JPEG that does not say whether its inks are inverted: save it as RGB"
        )
    if stored.bits == 16:
        _check_sixteen_bit_colour(stored, rules)
    transparency = stored.transparency
    if transparency is not None and stored.mode in ("1", "L", "P", "RGB"):
        # Pillow scales the pixels of 2 and 4 bits, but not the transparent grey.
        factor = {"L;2": 85, "L;4": 17}.get(stored.raw, 1)
        is_number = isinstance(transparency, int)
        image.info["transparency"] = transparency * factor if is_number else transparency
        return image.convert("RGBA")
    return image.convert(_MODES_8_BITS.get(stored.mode, "RGB"))


def flatten(image: Image.Image, rules: PixelRules, mode: Mode) -> Image.Image:
    """An image of `mode` from one of `to_8_bits`; opaque unless the mode has an alpha channel.

    Raises:
        PixelError: pixels are transparent, `mode` has no alpha channel, and there is no background.
    """
    if mode in ("LA", "RGBA"):
        return image.convert(mode)
    if image.mode not in ("LA", "RGBA") or image.getchannel("A").getextrema()[0] == 255:
        return image.convert(mode)
    if rules.background is None:
        raise PixelError(
            "has transparent pixels: "
            + rules.remedy("background", "the colour behind them, such as white or black")
            + "save it without transparency"
        )
    ground = Image.new("RGBA", image.size, (*rules.colour(), 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert(mode)


def _scale(image: Image.Image, stored: StoredPixels, rules: PixelRules) -> Image.Image:
    """Grey pixels of 12, 16 or 32 bits as L, or as LA if a value is transparent."""
    white = _white_level(stored, rules)
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise PixelError("has pixels that are NaN or infinite: replace them")
    if low < 0 or high > white:
        raise PixelError(
            f"has pixels in {low:g}-{high:g}, where 0 is black and {white:g} is white: "
            + rules.remedy("white_level", "the value that is white")
            + "save it with 8 bits"
        )
    if stored.bits == 32:
        levels = np.rint(values * (255 / white)).astype(np.uint8)
    else:
        # A table takes less memory than arithmetic with all pixels.
        levels = _levels(int(high) + 1, white)[values]
    result = Image.fromarray(255 - levels if stored.is_inverted else levels)
    if stored.transparency is not None:
        is_opaque = values != stored.transparency
        result.putalpha(Image.fromarray(is_opaque.astype(np.uint8) * np.uint8(255)))
    return result


def _levels(count: int, white: float) -> NDArray[np.uint8]:
    """The bytes of the integers 0 to `count` - 1."""
    values: NDArray[np.float64] = np.arange(count, dtype=np.float64)
    if (white + 1) % 256 == 0:
        # The highest 8 bits, as Pillow takes of colours with 16.
        return np.floor(values * 256 / (white + 1)).astype(np.uint8)
    return np.rint(values * (255 / white)).astype(np.uint8)


def _white_level(stored: StoredPixels, rules: PixelRules) -> float:
    if stored.file_format == "PPM" and stored.mode == "I":
        # The file states its white, and Pillow has scaled it.
        return _WHITE_16
    if stored.bits == 12:
        return 4095
    if rules.white_level is not None:
        return rules.white_level
    if stored.mode == "I":
        raise PixelError(
            "has integers of 32 bits or with a sign, whose white is unknown: "
            + rules.remedy("white_level", "the value that is white")
            + "save it with 8 or 16 bits"
        )
    return 1 if stored.mode == "F" else _WHITE_16


def _check_sixteen_bit_colour(stored: StoredPixels, rules: PixelRules) -> None:
    """Pillow gives the higher 8 bits of 16-bit colour: refuse what needs the lower ones."""
    if rules.white_level not in (None, _WHITE_16):
        raise PixelError(
            f"has 16 bits per colour, whose white is 65535, not {rules.white_level:g}: save it "
            "with 8 bits"
        )
    if stored.transparency is not None:
        raise PixelError("has 16 bits per colour and a transparent one: save it with 8 bits")
