"""Distortions of images that carry a pattern: shifts of the pattern, noise, JPEG."""

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from cwx.explanations.patterns import Attach


def shift(planes: Tensor, rows: int, columns: int) -> Tensor:
    """Planes ``[…, H, W]`` moved down by `rows` and right by `columns`; zeros move in.

    >>> shift(torch.tensor([[1, 2], [3, 4]]), 0, 1)
    tensor([[0, 1],
            [0, 3]])
    """
    height, width = planes.shape[-2:]
    moved = torch.zeros_like(planes)
    if abs(rows) < height and abs(columns) < width:
        to_rows, from_rows = _overlap(rows, height)
        to_columns, from_columns = _overlap(columns, width)
        moved[..., to_rows, to_columns] = planes[..., from_rows, from_columns]
    return moved


def _overlap(offset: int, length: int) -> tuple[slice, slice]:
    """Where the moved part is after and before a shift by `offset`."""
    after = slice(max(offset, 0), length + min(offset, 0))
    return after, slice(max(-offset, 0), length + min(-offset, 0))


def add_noise(images: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Unit images with normal noise, clipped to 0-1.

    Args:
        std: on the scale of 0-255.
        generator: on the CPU.
    """
    noise = torch.randn(images.shape, generator=generator).to(images)
    return (images + std / 255 * noise).clamp(0, 1)


class Noise:
    """`add_noise` after another change of the images.

    Args:
        std: on the scale of 0-255.
        generator: on the CPU; the batches of images draw from it in their order.
        before: the other change; ``None`` for none.
    """

    def __init__(
        self, std: float, generator: torch.Generator, before: Attach | None = None
    ) -> None:
        self.std, self.generator, self.before = std, generator, before

    def __call__(self, images: Tensor) -> Tensor:
        changed = images if self.before is None else self.before(images)
        return add_noise(changed, self.std, self.generator)

    def skip(self, shape: Sequence[int]) -> None:
        """Draw for a batch of this shape that another rank changes."""
        torch.randn(tuple(shape), generator=self.generator)


def compress(images: Tensor, quality: int) -> Tensor:
    """Unit images ``[n, C, H, W]`` after JPEG compression.

    Three channels are compressed as colours, others each as a grey image.

    Args:
        quality: 1 (worst) to 95.
    """
    count, channels, height, width = images.shape
    planes = images.cpu() if channels == 3 else images.cpu().reshape(-1, 1, height, width)
    result = torch.stack([_compress(plane, quality) for plane in planes])
    return result.view(count, channels, height, width).to(images)


def _compress(image: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    to_pil_image((255 * image).round().to(torch.uint8)).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        pixels: Tensor = pil_to_tensor(decoded)
    return pixels.float() / 255
