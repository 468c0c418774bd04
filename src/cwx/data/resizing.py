"""Resizing and cropping images to one size, as torchvision and timm do before evaluation."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Filters by the names that torchvision and timm use; all but ``nearest`` are antialiased."""

DEFAULT_INTERPOLATION = "bilinear"
"""The filter of most published weights, and of torchvision's transforms."""

MAX_SIDE = 4096
"""The largest side of an image in memory, in pixels."""

# Pixels of an enlarged image that is then cropped; above, only its centre is enlarged.
_MAX_RESIZED = 2**24
# The reach of the widest filter (lanczos), in pixels of the smaller of both images.
_REACH = 3


class Fit(Protocol):
    """Resizes an image to the common size.

    Attributes:
        minimum: an image may be reduced before, to no less than twice this shorter side.
        resampling: the filter.
    """

    @property
    def minimum(self) -> int: ...

    @property
    def resampling(self) -> Image.Resampling: ...

    def __call__(self, image: Image.Image) -> Image.Image: ...


@runtime_checkable
class ResizingSource(Protocol):
    """A data source that can resize its images; every source with a setting for the filter is one.

    Attributes:
        interpolation: the filter that the user has set, a name of `INTERPOLATIONS`; ``None`` for
            `DEFAULT_INTERPOLATION`.
        fit: resizes the images; ``None`` if they keep their size.
    """

    @property
    def interpolation(self) -> str | None: ...

    @property
    def fit(self) -> Fit | None: ...


@dataclass(frozen=True)
class _Crop:
    """Resizes the shorter side to `shorter` pixels and crops the central `side` x `side` pixels."""

    side: int
    shorter: int
    resampling: Image.Resampling

    @property
    def minimum(self) -> int:
        return self.shorter

    def __call__(self, image: Image.Image) -> Image.Image:
        # Round as torchvision does, so that its networks get the pixels that they were made for.
        long = self.shorter * max(image.size) // min(image.size)
        width, height = (
            (self.shorter, long) if image.width <= image.height else (long, self.shorter)
        )
        left, top = round((width - self.side) / 2), round((height - self.side) / 2)
        box = (left, top, left + self.side, top + self.side)
        return _resize_and_crop(image, (width, height), box, self.resampling)


@dataclass(frozen=True)
class _Rectangle:
    """The common part of what gives `width` x `height` pixels."""

    width: int
    height: int
    resampling: Image.Resampling

    @property
    def minimum(self) -> int:
        return max(self.width, self.height)


class _Stretch(_Rectangle):
    """Resizes to `width` x `height` pixels, without cropping."""

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.width * image.height > _MAX_RESIZED:
            # Pillow resizes rows first, which would be large for a narrow, high image.
            image = image.resize((image.width, self.height), self.resampling)
        return image.resize((self.width, self.height), self.resampling)


class _Fill(_Rectangle):
    """Resizes to the smallest size that covers `width` x `height` pixels, then crops the centre."""

    def __call__(self, image: Image.Image) -> Image.Image:
        scale = max(self.width / image.width, self.height / image.height)
        width = max(self.width, round(image.width * scale))
        height = max(self.height, round(image.height * scale))
        left, top = (width - self.width) // 2, (height - self.height) // 2
        box = (left, top, left + self.width, top + self.height)
        return _resize_and_crop(image, (width, height), box, self.resampling)


def crop_to(side: int, resize: int | None = None, *, interpolation: str | None) -> Fit:
    """Resizes the shorter side to `resize` pixels, then crops the central `side` x `side` pixels.

    Equal to torchvision's ``Resize`` and ``CenterCrop`` of an image of Pillow.

    Args:
        resize: ``None`` for `side`, so that only the longer side is cropped.
        interpolation: a name of `INTERPOLATIONS`; ``None`` for `DEFAULT_INTERPOLATION`.

    Raises:
        ValueError: `side` or `resize` is not in 1-4096, `resize` is below `side`, or there is no
            such interpolation.
    """
    check_side(side)
    shorter = side if resize is None else resize
    if shorter < side:
        raise ValueError(
            f"data.source.resize is {shorter}, less than the {side} pixels of data.source.size: "
            f"give {side} or more, or null"
        )
    check_side(shorter, "data.source.resize")
    return _Crop(side, shorter, resampling(interpolation))


def crop_if_sized(size: int | None, resize: int | None, interpolation: str | None) -> Fit | None:
    """`crop_to` of the settings of a source; ``None`` if images keep their size.

    Raises:
        ValueError: as `crop_to`, or there is a `resize` alone.
    """
    if size is None and resize is not None:
        raise ValueError(f"data.source.resize is {resize} without data.source.size: give both")
    return None if size is None else crop_to(size, resize, interpolation=interpolation)


def stretch_to(width: int, height: int, *, interpolation: str | None) -> Fit:
    """Resizes to `width` x `height` pixels, without cropping; the aspect ratio may change."""
    return _Stretch(width, height, resampling(interpolation))


def fill(height: int, width: int, *, interpolation: str | None) -> Fit:
    """Resizes to the smallest size that covers `height` x `width` pixels, then crops the centre."""
    return _Fill(width, height, resampling(interpolation))


def resampling(interpolation: str | None) -> Image.Resampling:
    """Pillow's filter of a name; ``None`` for `DEFAULT_INTERPOLATION`.

    Raises:
        ValueError: there is no such interpolation.
    """
    name = DEFAULT_INTERPOLATION if interpolation is None else interpolation
    if name not in INTERPOLATIONS:
        raise ValueError(
            f"data.source.interpolation is {name!r}: give one of {', '.join(INTERPOLATIONS)}, or "
            f"null for {DEFAULT_INTERPOLATION}"
        )
    return INTERPOLATIONS[name]


def check_side(side: int, setting: str = "data.source.size") -> None:
    """Refuse a side that no image in memory has."""
    if side < 1:
        raise ValueError(f"{setting} is {side}: give 1 pixel or more")
    if side > MAX_SIDE:
        raise ValueError(f"{setting} is {side}: give at most {MAX_SIDE} pixels")


def _resize_and_crop(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    resampling: Image.Resampling,
) -> Image.Image:
    """The part `box` (left, top, right, bottom) of `image` resized to `size`."""
    if size[0] * size[1] <= _MAX_RESIZED:
        return image.resize(size, resampling).crop(box)
    # Enlarge only the part that is needed, with the pixels around it that the filter reaches.
    scales = image.width / size[0], image.height / size[1]
    start = [box[axis] * scales[axis] for axis in (0, 1)]
    stop = [box[axis + 2] * scales[axis] for axis in (0, 1)]
    reach = [math.ceil(_REACH * max(scale, 1)) for scale in scales]
    low = [max(0, math.floor(start[axis]) - reach[axis]) for axis in (0, 1)]
    high = [min(image.size[axis], math.ceil(stop[axis]) + reach[axis]) for axis in (0, 1)]
    part = image.crop((low[0], low[1], high[0], high[1]))
    # Clamp: a product may exceed the image by a rounding error.
    ends = [min(stop[axis] - low[axis], part.size[axis]) for axis in (0, 1)]
    inner = (start[0] - low[0], start[1] - low[1], ends[0], ends[1])
    return part.resize((box[2] - box[0], box[3] - box[1]), resampling, box=inner)
