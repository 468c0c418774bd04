"""Where in an image a neuron looks (Zhou et al. 2015, §3.2; Dong et al., Figure 2; D3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Occluders:
    """Squares that cover a part of an image each.

    Attributes:
        places: rows and columns of their upper left corners, ``[count, 2]``.
        patches: what they cover it with, ``[count, C, size, size]``.
    """

    places: Tensor
    patches: Tensor

    def on(self, image: Tensor) -> Tensor:
        """`image` ``[C, H, W]`` under each of them, ``[count, C, H, W]``."""
        covered = image.expand(len(self.places), *image.shape).clone()
        size = self.patches.shape[-1]
        for under, patch, (top, left) in zip(
            covered, self.patches.to(image), self.places.tolist(), strict=True
        ):
            under[:, top : top + size, left : left + size] = patch
        return covered

    def split(self, chunk: int) -> list["Occluders"]:
        """At most `chunk` at a time."""
        parts = zip(self.places.split(chunk), self.patches.split(chunk), strict=True)
        return [Occluders(places=places, patches=patches) for places, patches in parts]


def random_occluders(
    image_shape: tuple[int, int, int], *, size: int, stride: int, generator: torch.Generator
) -> Occluders:
    """Squares of random pixels, uniform in 0-1, that slide over an image.

    Where the stride does not lead to the lower or right edge, a last one lies there: every pixel
    is covered. Zhou et al. have a size of 11 and a stride of 3 on images of 224x224.

    Args:
        image_shape: (C, H, W).
        size: the side in pixels.
        stride: pixels from one to the next.

    Raises:
        ValueError: the size does not fit the image, or the stride leaves pixels uncovered.
    """
    channels, height, width = image_shape
    if not 1 <= size <= min(height, width):
        raise ValueError(
            f"an occluder of {size}x{size} pixels does not fit an image of {height}x{width}: give "
            f"it a size of 1 to {min(height, width)}"
        )
    if not 1 <= stride <= size:
        raise ValueError(
            f"occluders of {size}x{size} pixels, {stride} apart, leave pixels uncovered: give a "
            f"stride of 1 to {size}"
        )
    rows, columns = (_starts(side, size, stride) for side in (height, width))
    places = torch.cartesian_prod(rows, columns)
    patches = torch.rand(len(places), channels, size, size, generator=generator)
    return Occluders(places=places, patches=patches)


def _starts(side: int, size: int, stride: int) -> Tensor:
    last = side - size
    return torch.tensor(sorted({*range(0, last + 1, stride), last}))


@torch.no_grad()
def discrepancy(
    activations: Callable[[Tensor], Tensor], image: Tensor, occluders: Occluders, *, chunk: int
) -> Tensor:
    """How much activation each pixel is worth: ``[neurons, H, W]``.

    The mean, over the occluders that cover the pixel, of the activation of the whole image minus
    that of the covered one; below 0 where what covers it excites the neuron more.

    Args:
        activations: of some neurons, from images ``[n, C, H, W]`` to ``[n, neurons]``.
        image: as `activations` takes it, ``[C, H, W]``.
        occluders: on the scale of `image`.
        chunk: images that `activations` is given at a time.
    """
    (whole,) = activations(image[None])
    height, width = image.shape[1:]
    size = occluders.patches.shape[-1]
    total = whole.new_zeros(len(whole), height, width)
    covering = whole.new_zeros(height, width)
    for part in occluders.split(chunk):
        lost = whole - activations(part.on(image))
        for loss, (top, left) in zip(lost, part.places.tolist(), strict=True):
            there = (..., slice(top, top + size), slice(left, left + size))
            total[there] += loss[:, None, None]
            covering[there] += 1
    averaged: Tensor = total / covering
    return averaged
