"""Figures of images by class."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from cwx.explanations.images import Explanations
from cwx.functional.images import Normalization

INFERNO = colormaps["inferno"]
Pixels = npt.NDArray[np.uint8]


def mosaic(explanations: Explanations, normalization: Normalization) -> Pixels:
    """A grid of images as bytes ``[height, width, 3]``, one row per class."""
    unit = normalization.denormalize(explanations.images)
    scale = max(1, 32 // unit.shape[-1])
    rows = [_strip(unit[explanations.labels == c], scale) for c in explanations.labels.unique()]
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows
    ]
    return np.concatenate(padded)


def to_pixels(image: Tensor) -> Pixels:
    """A unit image ``[C, H, W]`` as bytes ``[H, W, 3]``; one channel is repeated three times."""
    colour = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return colour.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()


def _strip(images: Tensor, scale: int) -> Pixels:
    tiles = [np.kron(to_pixels(i), np.ones((scale, scale, 1), np.uint8)) for i in images]
    return np.concatenate(
        [np.pad(t, ((1, 1), (1, 1), (0, 0)), constant_values=255) for t in tiles],
        axis=1,
    )


def sheet(
    columns: Mapping[str, Tensor], labels: Mapping[str, Tensor], classes: Sequence[str]
) -> Figure:
    """A figure of unit images: a block of columns per source, a row per class with images.

    Args:
        columns: unit images ``[n, C, H, W]``, by the title of the source.
        labels: their class indices ``[n]``, by the same titles.
        classes: the name of each class, by index.
    """
    rows = torch.cat(list(labels.values())).unique().tolist()
    widths = [int(torch.bincount(labels[title]).max()) for title in columns]
    # Sizes in inches: the side of a tile, and the width of the row names.
    side, names = 0.5, 1.3
    figure = Figure(
        figsize=(
            names + side * (sum(widths) + 0.4 * len(widths)),
            side * len(rows) + 0.4,
        ),
        dpi=120,
    )
    total_width, total_height = figure.get_size_inches()
    left = names
    for (title, images), width in zip(columns.items(), widths, strict=True):
        # A long title takes two smaller lines; a character of 7 points is about 0.06 inches wide.
        fits = len(title) * 0.08 <= side * (width + 0.4)
        lines = (
            [title]
            if fits
            else wrap(title, int(side * (width + 0.4) / 0.06), break_long_words=False)[:2]
        )
        figure.text(
            (left + side * width / 2) / total_width, 1 - 0.2 / total_height, "\n".join(lines),
            ha="center", va="center", fontsize=9 if fits else 7, parse_math=False,
        )  # fmt: skip
        for row, label in enumerate(rows):
            for column, image in enumerate(images[labels[title] == label]):
                box = (
                    (left + side * (column + 0.04)) / total_width,
                    1 - (0.4 + side * (row + 0.96)) / total_height,
                    side * 0.92 / total_width,
                    side * 0.92 / total_height,
                )
                axes = figure.add_axes(box)
                axes.imshow(to_pixels(image), interpolation="nearest")
                axes.set_axis_off()
        left += side * (width + 0.4)
    for row, name in enumerate(classes[label] for label in rows):
        height = 1 - (0.4 + side * (row + 0.5)) / total_height
        text, size = _fit_row_name(name)
        # Names are user text: a dollar sign must not start a formula.
        figure.text(
            (names - 0.1) / total_width, height, text, ha="right", va="center",
            fontsize=size, parse_math=False,
        )  # fmt: skip
    return figure


def _fit_row_name(name: str) -> tuple[str, int]:
    """The name of a row, wrapped to at most two lines, and its font size in points."""
    if len(name) <= 14:
        return name, 9
    first, *rest = wrap(name, 18)
    return "\n".join([first, *([shorten(" ".join(rest), 18)] if rest else [])]), 7


def heat(image: Tensor, values: Tensor) -> Tensor:
    """A heat map of values ``[H, W]`` ≥ 0 over a unit image ``[C, H, W]``: ``[3, H, W]``.

    Values are scaled by their maximum, which gets the brightest colour.
    """
    peak = values.max().clamp(min=torch.finfo(values.dtype).tiny)
    colours = torch.tensor(INFERNO((values / peak).numpy())[..., :3], dtype=image.dtype)
    grey = image.mean(0, keepdim=True).cpu()
    return 0.3 * grey + 0.7 * colours.permute(2, 0, 1)


def highlight(image: Tensor, values: Tensor, threshold: float) -> Tensor:
    """A unit image ``[C, H, W]``, darkened to 30 % where values ``[H, W]`` are low.

    Args:
        threshold: values below this fraction of the maximum are low; all are low if the maximum
            is 0 or less.
    """
    peak = values.max()
    high = (values >= threshold * peak) & (peak > 0)
    return torch.where(high, image, 0.3 * image)


class Tile(NamedTuple):
    """A unit image ``[C, H, W]``, its caption, and whether it has a red frame."""

    image: Tensor
    caption: str
    framed: bool


def tiles(rows: Sequence[tuple[str, Sequence[Tile]]]) -> Figure:
    """A figure with named rows of images with captions."""
    side, names, below = 0.8, 1.3, 0.16
    width = names + side * max(len(row) for _, row in rows)
    height = (side + below) * len(rows) + 0.1
    figure = Figure(figsize=(width, height), dpi=120)
    for index, (name, row) in enumerate(rows):
        bottom = height - 0.05 - (side + below) * (index + 1) + below
        figure.text(
            (names - 0.1) / width, (bottom + side / 2) / height, name, ha="right", va="center",
            fontsize=8, parse_math=False,
        )  # fmt: skip
        for column, tile in enumerate(row):
            left = names + side * (column + 0.04)
            box = (left / width, bottom / height, 0.92 * side / width, 0.92 * side / height)
            axes = figure.add_axes(box, xticks=[], yticks=[])
            axes.imshow(to_pixels(tile.image), interpolation="nearest")
            axes.spines[:].set(color="red", linewidth=2, visible=tile.framed)
            axes.set_xlabel(tile.caption, fontsize=5, labelpad=2, parse_math=False)
    return figure


def shorten(name: str, length: int = 14) -> str:
    """A name, shortened to `length` characters with an ellipsis if longer."""
    return name if len(name) <= length else name[: length - 1] + "…"
