"""Many small images inside a page, several in each picture, so that few are decoded at a time."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwx.report.inline_images import data_uri

# Images in a row of a picture, and rows. A unit's images are all over the set, so that a larger
# picture would be decoded for one of its images.
ACROSS = 4
# A JPEG is coded in blocks of so many pixels, which two images must not share.
_BLOCK = 8
_SETTINGS: dict[str, dict[str, Any]] = {"png": {}, "jpeg": {"quality": 88, "subsampling": 0}}


@dataclass(frozen=True)
class Sprites:
    """Pictures of `ACROSS` x `ACROSS` images, as data URIs.

    Attributes:
        uris: image i is in picture ``i // ACROSS²``.
        size: height and width of an image.
        pitch: pixels from an image to the one below, and to the one on its right.
    """

    uris: list[str]
    size: tuple[int, int]
    pitch: tuple[int, int]


def make_sprites(images: npt.NDArray[np.uint8]) -> Sprites:
    """The pictures of n ≥ 1 byte images ``[n, C, h, w]``; without 3 channels, the first is shown.

    They are PNG or JPEG, whichever is smaller for the first.
    """
    height, width = images.shape[2:]
    pitch = (-(-height // _BLOCK) * _BLOCK, -(-width // _BLOCK) * _BLOCK)
    pictures = [*_pictures(images, pitch)]
    kind = min(_SETTINGS, key=lambda name: len(_encoded(pictures[0], name)))
    uris = [data_uri(_encoded(picture, kind), kind) for picture in pictures]
    return Sprites(uris, (height, width), pitch)


def _pictures(images: npt.NDArray[np.uint8], pitch: tuple[int, int]) -> Iterator[Image.Image]:
    height, width = images.shape[2:]
    channels = 3 if images.shape[1] == 3 else 1
    below, right = pitch[0] - height, pitch[1] - width
    for start in range(0, len(images), ACROSS**2):
        part = images[start : start + ACROSS**2, :channels]
        # The edge goes on, so that a block has no step between an image and its margin.
        tiles = np.pad(part, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")
        missing = ACROSS**2 - len(tiles)
        tiles = np.pad(tiles, ((0, missing), (0, 0), (0, 0), (0, 0)))
        grid = tiles.reshape(ACROSS, ACROSS, channels, *pitch).transpose(0, 3, 1, 4, 2)
        pixels = grid.reshape(ACROSS * pitch[0], ACROSS * pitch[1], channels)
        yield Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind.upper(), **_SETTINGS[kind])
    return file.getvalue()
