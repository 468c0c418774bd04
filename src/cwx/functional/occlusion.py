"""Discrepancy maps by occlusion (Zhou et al. 2015, §3.2; Dong et al., Figure 2)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Occluders:
    """Square patches, each of which covers a part of an image.

    Attributes:
        corners: rows and columns of the patches' upper left pixels, ``[count, 2]``; a patch at a
            border has a part, or all, outside of the image.
        patches: their pixels, ``[count, C, size, size]``.
        stride: pixels between neighbouring corners.
    """

    corners: Tensor
    patches: Tensor
    stride: int

    def on(self, image: Tensor) -> Tensor:
        """Copies of `image` ``[C, H, W]``, one with each patch, ``[count, C, H, W]``."""
        occluded = image.expand(len(self.corners), *image.shape).clone()
        size, (height, width) = self.patches.shape[-1], image.shape[1:]
        for copy, patch, (top, left) in zip(
            occluded, self.patches.to(image), self.corners.tolist(), strict=True
        ):
            rows, columns = (
                slice(min(max(start, 0), side), min(max(start + size, 0), side))
                for start, side in ((top, height), (left, width))
            )
            copy[:, rows, columns] = patch[
                :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
            ]
        return occluded

    def split(self, chunk: int) -> list["Occluders"]:
        """Parts of at most `chunk` patches."""
        parts = zip(self.corners.split(chunk), self.patches.split(chunk), strict=True)
        return [replace(self, corners=corners, patches=patches) for corners, patches in parts]


def random_occluders(
    image_shape: tuple[int, int, int], *, size: int, stride: int, generator: torch.Generator
) -> Occluders:
    """Patches of random pixels, uniform in 0-1, on a regular grid over an image and its border.

    The grid goes on beyond the image, so that the pixels at the border are in as many patches as
    those in the middle. Zhou et al. use a size of 11 and a stride of 3 for images of 224x224.

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
    return Occluders(corners=corners, patches=patches, stride=stride)


def _starts(side: int, size: int, stride: int) -> Tensor:
    """The corners of all patches whose weight (`_weights`) is above 0 in an image of that side."""
    before = (stride - 1) // 2
    return torch.arange(before - (size + stride - 2), side + before, stride)


def _weights(size: int, stride: int) -> Tensor:
    """The weight of a patch along one axis, ``[size + stride - 1]``.

    1 at each of its pixels, averaged over `stride` neighbouring pixels. The weights of all patches
    of a grid add up to size / stride at every pixel.
    """
    box, kernel = torch.ones(1, 1, size), torch.full((1, 1, stride), 1 / stride)
    return F.conv1d(box, kernel, padding=stride - 1)[0, 0]


@torch.no_grad()
def discrepancy(
    activations: Callable[[Tensor], Tensor], image: Tensor, occluders: Occluders, *, chunk: int
) -> Tensor:
    """The discrepancy map of each neuron, ``[neurons, H, W]``: activation lost per occluded pixel.

    A pixel's value is the mean, over the occluders that cover it, of the activation of the image
    minus that of the occluded image. It is below 0 where the occluders excite the neuron more. The
    mean has the weights of `_weights`, so that it is smooth, and where activations are mere noise,
    no part of the image has higher values than another.

    Args:
        activations: of some neurons, from images ``[n, C, H, W]`` to ``[n, neurons]``.
        image: an input of `activations`, ``[C, H, W]``.
        occluders: on the scale of `image`.
        chunk: number of images per call of `activations`.
    """
    (original,) = activations(image[None])
    height, width = image.shape[1:]
    size, stride = occluders.patches.shape[-1], occluders.stride
    weights = _weights(size, stride).to(original)
    window, reach = weights.outer(weights), len(weights)
    # The map with a margin, in which the weights of all occluders lie whole. They begin before the
    # occluder, so that both have one centre (within half a pixel for an even stride).
    before, margin = (stride - 1) // 2, size + stride - 2
    total = original.new_zeros(len(original), height + 2 * margin, width + 2 * margin)
    for part in occluders.split(chunk):
        losses = original - activations(part.on(image))
        for loss, (top, left) in zip(
            losses, (part.corners - before + margin).tolist(), strict=True
        ):
            total[:, top : top + reach, left : left + reach] += loss[:, None, None] * window
    inside = total[:, margin : margin + height, margin : margin + width]
    mean: Tensor = inside * (stride / size) ** 2
    return mean
