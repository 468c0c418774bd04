"""Random images in files of several formats for tests."""

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

_FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


def encoded(pixels: Tensor, suffix: str = "png") -> bytes:
    """The bytes of a file of an image ``[H, W, 3]``."""
    stream = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(stream, _FORMATS[suffix])
    return stream.getvalue()


def image_tree(root: Path, suffixes: Sequence[str] = tuple(_FORMATS), digits: int = 2) -> Path:
    """Class folders with 33 training and 18 test images of noise, 8x9 pixels.

    Args:
        root: of ``train/<class>/*`` and ``test/<class>/*``.
        suffixes: of the files, in turn.
        digits: of the number that is the name of a file.
    """
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 11), ("test", 6)):
        for name in ("ant", "bee", "cat"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (9, 8, 3), generator=generator, dtype=torch.uint8)
                suffix = suffixes[i % len(suffixes)]
                (root / split / name / f"{i:0{digits}d}.{suffix}").write_bytes(
                    encoded(pixels, suffix)
                )
    return root
