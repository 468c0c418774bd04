"""The top images of units, each once, in the size of the atlas's page."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# Pixels of all images together: a page of some 30 MB, which opens in a second.
MAX_PIXELS = 2**25
# Sides in pixels of larger images, the first at which all images fit; the last if none does.
SIDES = (64, 48, 32)
# Images that are read at a time.
CHUNK = 1024

# From indices to byte images.
Read = Callable[[Tensor], Tensor]


def reduced_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image with sides of at most `side` pixels; small images stay."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def choose_images(
    sets: Sequence[Sequence[Tensor]], height: int, width: int, *, max_pixels: int = MAX_PIXELS
) -> tuple[list[Tensor], tuple[int, int]]:
    """The images to keep of each set, and their height and width.

    The first image of every unit comes first, then the second, until `max_pixels` are reached.

    Args:
        sets: for each set of images, the top images of several layers ``[units, k]``; -1: none.

    Returns:
        Ascending indices of each set, and the size.
    """
    wanted = [_distinct(layers) for layers in sets]
    size = (height, width)
    for side in SIDES:
        size = reduced_size(height, width, side)
        if sum(map(len, wanted)) * size[0] * size[1] <= max_pixels:
            break
    left = max_pixels // (size[0] * size[1])
    kept: list[list[Tensor]] = [[] for _ in sets]
    for rank in range(max((t.shape[1] for layers in sets for t in layers), default=0)):
        for chosen, layers in zip(kept, sets, strict=True):
            new = _distinct([top[:, rank : rank + 1] for top in layers])
            new = new[~torch.isin(new, torch.cat([new[:0], *chosen]))][:left]
            chosen.append(new)
            left -= len(new)
    return [torch.cat([torch.empty(0).long(), *c]).sort().values for c in kept], size


def _distinct(tops: Sequence[Tensor]) -> Tensor:
    parts = [torch.empty(0).long(), *(top.flatten().long() for top in tops)]
    indices: Tensor = torch.cat(parts).unique()
    return indices[indices >= 0]


def thumbnails(indices: Tensor, read: Read, size: tuple[int, int], channels: int) -> Tensor:
    """Byte images ``[n, C, h, w]`` at these indices, each reduced to `size` by its mean."""
    reduced = torch.empty((len(indices), channels, *size), dtype=torch.uint8)
    for start in range(0, len(indices), CHUNK):
        images = read(indices[start : start + CHUNK]).cpu()
        if images.shape[2:] != size:
            images = F.adaptive_avg_pool2d(images.float(), size).round().byte()
        reduced[start : start + len(images)] = images
    return reduced
