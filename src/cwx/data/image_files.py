"""Picture files as byte tensors of one size."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cwx.data.splits import ImageSet

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

Fit = Callable[[Image.Image], Image.Image]
"""Brings a picture to the size of all."""

Labelled = Sequence[tuple[Path, int]]
"""Picture files, each with its class index."""


def image_files(folder: Path) -> list[Path]:
    """The picture files that lie directly in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


T = TypeVar("T")


def open_image(file: Path, use: Callable[[Image.Image], T]) -> T:
    """What `use` makes of a picture file.

    Raises:
        ValueError: it cannot be read, or is too large to be a picture.
    """
    try:
        with warnings.catch_warnings():
            # A picture large enough to be a decompression bomb is refused, not read.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                return use(image)
    except (
        OSError,
        SyntaxError,
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise ValueError(
            f"{file} cannot be read as an image ({error}): replace or remove it"
        ) from error


def crop_to(side: int, resize: int | None = None) -> Fit:
    """Resizes the shorter side to `resize` pixels and cuts the centre of `side` pixels.

    Args:
        resize: ``None`` for `side`, so that the longer side alone is cut.

    Raises:
        ValueError: a side is below 1, or less is resized to than cut.
    """
    _check_side(side)
    shorter = side if resize is None else resize
    if shorter < side:
        raise ValueError(
            f"data.source.resize is {shorter}, less than the {side} pixels of data.source.size: "
            f"give {side} or more, or null"
        )

    def fit(image: Image.Image) -> Image.Image:
        scale = shorter / min(image.size)
        width, height = (max(shorter, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - side) // 2, (height - side) // 2
        return image.crop((left, top, left + side, top + side))

    return fit


def stretch_to(side: int) -> Fit:
    """Resizes both sides to `side` pixels: nothing is cut, shapes may be stretched."""
    _check_side(side)
    return lambda image: image.resize((side, side), Image.Resampling.BICUBIC)


def fill(height: int, width: int) -> Fit:
    """Resizes to the least that covers `height` x `width` pixels and cuts the centre out of it."""

    def fit(image: Image.Image) -> Image.Image:
        scale = max(width / image.width, height / image.height)
        size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        return image.crop((left, top, left + width, top + height))

    return fit


def _check_side(side: int) -> None:
    if side < 1:
        raise ValueError(f"data.source.size is {side}: give 1 pixel or more")


def is_grey(file: Path) -> bool:
    return open_image(file, lambda image: image.mode in ("1", "L", "I;16"))


class Reader:
    """Reads picture files, all of one size, into memory.

    Args:
        channels: 1 for grey, 3 for colour.
        fit: brings each picture to that size; ``None`` if they have it.
    """

    def __init__(self, *, channels: int, fit: Fit | None) -> None:
        self.mode, self.fit = "L" if channels == 1 else "RGB", fit
        self.first: tuple[Path, tuple[int, int]] | None = None

    def read(self, labelled: Labelled) -> ImageSet:
        """The pictures in their order; every call's are of one size.

        Raises:
            ValueError: a file is no picture, or of another size than the first.
        """
        # One tensor for all: a list of them would hold the set twice.
        shape = self._image(labelled[0][0]).shape
        images = torch.empty((len(labelled), *shape), dtype=torch.uint8)
        for position, (file, _) in enumerate(labelled):
            images[position] = self._image(file)
        return ImageSet(images, torch.tensor([label for _, label in labelled]))

    def _image(self, file: Path) -> Tensor:
        picture = open_image(file, self._decode)
        if self.first is None:
            self.first = file, picture.size
        if picture.size != self.first[1]:
            (width, height), (first, (first_width, first_height)) = picture.size, self.first
            raise ValueError(
                f"images differ in size: {first} is {first_width}x{first_height}, {file} is "
                f"{width}x{height}; set data.source.size to resize them"
            )
        array = np.asarray(picture)
        return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).copy())

    def _decode(self, image: Image.Image) -> Image.Image:
        image = image.convert(self.mode)
        return image if self.fit is None else self.fit(image)
