"""Reading image files as byte tensors of one size."""

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
"""Resizes an image to the common size."""

LabelledFiles = Sequence[tuple[Path, int]]
"""Image files, each with its class index."""


def image_files(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


T = TypeVar("T")


def open_image(file: Path, use: Callable[[Image.Image], T]) -> T:
    """Open an image file and return `use` of it.

    Raises:
        ValueError: the file cannot be read, or has so many pixels that it may be a
            decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns about a possible decompression bomb: refuse it.
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
    """Resizes the shorter side to `resize` pixels, then crops the central `side` x `side` pixels.

    Args:
        resize: ``None`` for `side`, so that only the longer side is cropped.

    Raises:
        ValueError: `side` is below 1, or `resize` is below `side`.
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
    """Resizes both sides to `side` pixels, without cropping; the aspect ratio may change."""
    _check_side(side)
    return lambda image: image.resize((side, side), Image.Resampling.BICUBIC)


def fill(height: int, width: int) -> Fit:
    """Resizes to the smallest size that covers `height` x `width` pixels, then crops the centre."""

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
    """Reads image files of one size into memory.

    Args:
        channels: 1 for grey, 3 for colour.
        fit: resizes each image to the common size; ``None`` if the files have one size already.
    """

    def __init__(self, *, channels: int, fit: Fit | None) -> None:
        self.mode, self.fit = "L" if channels == 1 else "RGB", fit
        self.first: tuple[Path, tuple[int, int]] | None = None

    def read(self, files: LabelledFiles) -> ImageSet:
        """The images in the order of `files`, as bytes.

        Raises:
            ValueError: a file is not an image, or its size differs from the first image that this
                reader has read, in this call or an earlier one.
        """
        # Fill one tensor: stacking a list would need twice the memory.
        shape = self._image(files[0][0]).shape
        images = torch.empty((len(files), *shape), dtype=torch.uint8)
        for index, (file, _) in enumerate(files):
            images[index] = self._image(file)
        return ImageSet(images, torch.tensor([label for _, label in files]))

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
