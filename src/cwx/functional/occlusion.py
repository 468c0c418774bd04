"""Discrepancy maps by occlusion (Zhou et al. 2015, §3.2; Dong et al., Figure 2; D3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Occluders:
    """Square patches, each of which covers a part of an image.

    Attributes:
        corners: rows and columns of the patches' upper left pixels, ``[count, 2]``.
        patches: their pixels, ``[count, C, size, size]``.
    """

    corners: Tensor
    patches: Tensor

    def on(self, image: Tensor) -> Tensor:
        """Copies of `image` ``[C, H, W]``, one with each patch, ``[count, C, H, W]``."""
        occluded = image.expand(len(self.corners), *image.shape).clone()
        size = self.patches.shape[-1]
        for copy, patch, (top, left) in zip(
            occluded, self.patches.to(image), self.corners.tolist(), strict=True
        ):
            copy[:, top : top + size, left : left + size] = patch
        return occluded

    def split(self, chunk: int) -> list["Occluders"]:
        """Parts of at most `chunk` patches."""
        parts = zip(self.corners.split(chunk), self.patches.split(chunk), strict=True)
        return [Occluders(corners=corners, patches=patches) for corners, patches in parts]


def random_occluders(
    image_shape: tuple[int, int, int], *, size: int, stride: int, generator: torch.Generator
) -> Occluders:
    """Patches of random pixels, uniform in 0-1, on a regular grid over an image.

    If the grid does not end at the lower or right edge, a last patch is added there, so that every
    pixel is covered. Zhou et al. use a size of 11 and a stride of 3 for images of 224x224.

    Args:
        image_shape: (C, H, W).
        size: the side of a patch in pixels.
        stride: pixels between neighbouring corners.
        generator: on the CPU, for the pixels.

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
    corners = torch.cartesian_prod(rows, columns)
    patches = torch.rand(len(corners), channels, size, size, generator=generator)
    return Occluders(corners=corners, patches=patches)


def _starts(side: int, size: int, stride: int) -> Tensor:
    last = side - size
    return torch.tensor(sorted({*range(0, last + 1, stride), last}))


@torch.no_grad()
def discrepancy(
    activations: Callable[[Tensor], Tensor], image: Tensor, occluders: Occluders, *, chunk: int
) -> Tensor:
    """The discrepancy map of each neuron, ``[neurons, H, W]``: activation lost per occluded pixel.

    A pixel's value is the mean, over the occluders that cover it, of the activation of the image
    minus that of the occluded image. It is below 0 where the occluders excite the neuron more.

    Args:
        activations: of some neurons, from images ``[n, C, H, W]`` to ``[n, neurons]``.
        image: an input of `activations`, ``[C, H, W]``.
        occluders: on the scale of `image`.
        chunk: number of images per call of `activations`.
    """
    (original,) = activations(image[None])
    height, width = image.shape[1:]
    size = occluders.patches.shape[-1]
    total = original.new_zeros(len(original), height, width)
    counts = original.new_zeros(height, width)
    for part in occluders.split(chunk):
        losses = original - activations(part.on(image))
        for loss, (top, left) in zip(losses, part.corners.tolist(), strict=True):
            window = (..., slice(top, top + size), slice(left, left + size))
            total[window] += loss[:, None, None]
            counts[window] += 1
    mean: Tensor = total / counts
    return mean
