"""Figures of images by class, in whole pixels: small images are enlarged by a whole factor."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from cwx.explanations.images import Explanations
from cwx.explanations.text_fitting import FittedText, fit_text, text_width
from cwx.functional.images import Normalization

INFERNO = colormaps["inferno"]
Pixels = npt.NDArray[np.uint8]

# A power of two: whole pixels are exact fractions of an inch.
DPI = 128
# Pixels: the side of a small image in a figure, the largest side, and the gap between images.
_SIDE, _MAX_SIDE, _GAP = 64, 96, 4
# Pixels: a figure's largest side (the renderer's limit is 65,536), height of titles and margins.
_MAX_FIGURE, _TITLES, _MARGIN = 64_000, 56, 10
# Pixels: the widest row names, the widest title of a narrow block, the gap between blocks.
_NAMES, _TITLE, _BLOCK_GAP = 190, 110, 26
# Pixels: the side of an image with a caption, the space for the caption.
_TILE, _CAPTION = 96, 32
# The colour of outlines, which is rare in pictures.
_OUTLINE = (1.0, 0.9, 0.0)


def mosaic(explanations: Explanations, normalization: Normalization) -> Pixels:
    """A grid of images as bytes ``[height, width, 3]``, one row per class."""
    unit = normalization.denormalize(explanations.images)
    rows = [_strip(unit[explanations.labels == c]) for c in explanations.labels.unique()]
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows
    ]
    return np.concatenate(padded)


def to_pixels(image: Tensor) -> Pixels:
    """A unit image ``[C, H, W]`` as bytes ``[H, W, 3]``; one channel is repeated three times."""
    colour = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return colour.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()


def whole_factor(shape: Sequence[int], side: int) -> int:
    """The largest whole factor that enlarges ``(…, H, W)`` to at most `side` pixels; at least 1."""
    return max(1, side // max(shape[-2:]))


def enlarge(pixels: Pixels, factor: int) -> Pixels:
    """Each pixel of bytes ``[H, W, 3]`` as a square of `factor` x `factor` pixels."""
    return pixels.repeat(factor, 0).repeat(factor, 1)


def _strip(images: Tensor) -> Pixels:
    factor = whole_factor(images.shape, 32)
    tiles = [enlarge(to_pixels(image), factor) for image in images]
    return np.concatenate(
        [np.pad(t, ((1, 1), (1, 1), (0, 0)), constant_values=255) for t in tiles],
        axis=1,
    )


def sheet(
    columns: Mapping[str, Tensor], labels: Mapping[str, Tensor], classes: Sequence[str]
) -> Figure:
    """A figure of unit images: a block of columns per source, a row per class with images.

    A pixel of a small image is a square of whole pixels; images above 96 pixels are reduced by a
    whole factor. Long titles and names are wrapped, then shortened.

    Args:
        columns: unit images ``[n, C, H, W]``, by the title of the source.
        labels: their class indices ``[n]``, by the same titles.
        classes: the name of each class, by index.
    """
    rows = torch.cat(list(labels.values())).unique().tolist()
    counts = [int(torch.bincount(labels[title]).max()) for title in columns]
    side = _largest_side(len(rows), sum(counts))
    small = {title: _reduced(images, side) for title, images in columns.items()}
    boxes = [_shown_size(images.shape, side) for images in small.values()]
    height = max(box[0] for box in boxes) + _GAP
    widths = [
        max(count * (box[1] + _GAP), min(text_width(title, 9, DPI), _TITLE))
        for title, count, box in zip(columns, counts, boxes, strict=True)
    ]
    names = [fit_text(classes[label], _NAMES, DPI, max_lines=3) for label in rows]
    left = _MARGIN + max(name.width for name in names) + _MARGIN
    page = _Page(
        width=left + sum(widths) + _BLOCK_GAP * len(widths),
        height=_TITLES + height * len(rows) + _MARGIN,
    )
    x = left
    for (title, images), width in zip(small.items(), widths, strict=True):
        heading = fit_text(title, width + _BLOCK_GAP - _GAP, DPI, max_lines=2)
        page.text(heading, x + (width - _GAP) / 2, _TITLES / 2, align="center")
        for row, label in enumerate(rows):
            for column, image in enumerate(images[labels[title] == label]):
                shown = _shown_size(images.shape, side)
                page.image(image, x + column * (shown[1] + _GAP), _TITLES + row * height, shown)
        x += width + _BLOCK_GAP
    for row, name in enumerate(names):
        page.text(name, left - _MARGIN, _TITLES + height * (row + 0.5) - _GAP / 2, align="right")
    return page.figure


def _largest_side(rows: int, columns: int) -> int:
    """The largest side of an image in pixels, so that the renderer can draw the figure."""
    return max(1, min(_MAX_SIDE, _MAX_FIGURE // max(rows, columns) - _GAP))


def _reduced(images: Tensor, side: int) -> Tensor:
    """Images ``[n, C, H, W]`` of at most `side` pixels: means of whole squares."""
    factor = -(-max(images.shape[2:]) // side)
    if factor == 1 or not len(images):
        return images
    return F.avg_pool2d(images.float(), factor, ceil_mode=True, count_include_pad=False)


def _shown_size(shape: Sequence[int], side: int) -> tuple[int, int]:
    """Height and width in pixels, as displayed."""
    factor = whole_factor(shape, min(_SIDE, side))
    return factor * shape[-2], factor * shape[-1]


class _Page:
    """A figure with whole pixels as coordinates, from its upper left corner."""

    def __init__(self, *, width: int, height: int) -> None:
        self.size = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def text(self, text: FittedText, x: float, y: float, *, align: str) -> None:
        # Names are user text: a dollar sign must not start a formula.
        self.figure.text(
            x / self.size[0], 1 - y / self.size[1], text.lines, ha=align, va="center",
            fontsize=text.points, parse_math=False,
        )  # fmt: skip

    def image(self, unit: Tensor, x: int, y: int, size: tuple[int, int]) -> Axes:
        """A unit image ``[C, H, W]`` in a box of `size` (height, width), a multiple of its own."""
        width, height = self.size
        # A rounding error upwards would add a pixel, and resample the image unevenly.
        tiny = 0.01
        box = (
            (x + tiny) / width,
            1 - (y + size[0] - tiny) / height,
            (size[1] - 2 * tiny) / width,
            (size[0] - 2 * tiny) / height,
        )
        axes = self.figure.add_axes(box, xticks=[], yticks=[])
        axes.imshow(to_pixels(unit), interpolation="nearest", aspect="auto")
        axes.spines[:].set_visible(False)
        return axes


def heat(image: Tensor, values: Tensor) -> Tensor:
    """A heat map of values ``[H, W]`` ≥ 0 over a unit image ``[C, H, W]``: ``[3, H, W]``.

    Values are scaled by their maximum, which gets the brightest colour.
    """
    peak = values.max().clamp(min=torch.finfo(values.dtype).tiny)
    colours = torch.tensor(INFERNO((values / peak).numpy())[..., :3], dtype=image.dtype)
    grey = image.mean(0, keepdim=True).cpu()
    return 0.3 * grey + 0.7 * colours.permute(2, 0, 1)


def highlight(image: Tensor, values: Tensor, threshold: float) -> Tensor:
    """A unit image ``[C, H, W]`` at the size of a tile, with an outline where values are high.

    The values ``[H, W]`` are resized to the size of the tile, so that the outline is smooth. The
    image keeps its brightness: darkened, an image of few pixels is hard to recognise.

    Args:
        threshold: values of at least this fraction of the maximum are high; none is if the maximum
            is 0 or less.

    Returns:
        A unit image in colour ``[3, height, width]``.
    """
    small = _reduced(image[None], _TILE)[0].cpu()
    factor = whole_factor(small.shape, _TILE)
    colour = small[:3] if len(small) >= 3 else small[:1].expand(3, -1, -1)
    shown = colour.repeat_interleave(factor, 1).repeat_interleave(factor, 2).clone()
    resized = F.interpolate(
        values[None, None].double().cpu(), shown.shape[1:], mode="bilinear", align_corners=False
    )
    peak = values.max()
    high = ((resized >= threshold * peak) & (peak > 0)).double()
    # A bright line around the region, and a dark line around it, seen on any image.
    bright, dark = (
        (F.max_pool2d(high, 2 * reach + 1, stride=1, padding=reach) > 0)[0, 0] for reach in (1, 2)
    )
    inside = high[0, 0] > 0
    shown[:, dark & ~inside] = 0
    shown[:, bright & ~inside] = shown.new_tensor(_OUTLINE)[:, None]
    return shown


class Tile(NamedTuple):
    """A unit image ``[C, H, W]``, its caption, and whether it has a red frame."""

    image: Tensor
    caption: str
    framed: bool


def tiles(rows: Sequence[tuple[str, Sequence[Tile]]]) -> Figure:
    """A figure with named rows of images with captions; images as in `sheet`."""
    names = [fit_text(name, _NAMES, DPI, max_lines=3) for name, _ in rows]
    left = _MARGIN + max(name.width for name in names) + _MARGIN
    page = _Page(
        width=left + (_TILE + 2 * _GAP) * max(len(row) for _, row in rows) + _MARGIN,
        height=_MARGIN + (_TILE + _CAPTION) * len(rows),
    )
    for index, (name, (_, row)) in enumerate(zip(names, rows, strict=True)):
        top = _MARGIN + (_TILE + _CAPTION) * index
        page.text(name, left - _MARGIN, top + _TILE / 2, align="right")
        for column, tile in enumerate(row):
            image = _reduced(tile.image[None], _TILE)[0]
            factor = whole_factor(image.shape, _TILE)
            size = factor * image.shape[1], factor * image.shape[2]
            x = left + (_TILE + 2 * _GAP) * column + (_TILE - size[1]) // 2
            axes = page.image(image, x, top + (_TILE - size[0]) // 2, size)
            axes.spines[:].set(color="red", linewidth=2, visible=tile.framed)
            caption = fit_text(tile.caption, _TILE + _GAP, DPI, max_lines=2, sizes=(6, 5))
            axes.set_xlabel(caption.lines, fontsize=caption.points, labelpad=2, parse_math=False)
    return page.figure
