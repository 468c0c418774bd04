"""Pictures of images by class."""

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


def mosaic(shown: Explanations, normalization: Normalization) -> Pixels:
    """Images side by side as ``[height, width, 3]`` bytes, a row a class."""
    unit = normalization.denormalize(shown.images)
    scale = max(1, 32 // unit.shape[-1])
    rows = [_strip(unit[shown.labels == c], scale) for c in shown.labels.unique()]
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows
    ]
    return np.concatenate(padded)


def to_pixels(image: Tensor) -> Pixels:
    """One unit image ``[C, H, W]`` as ``[H, W, 3]`` bytes; grey becomes grey colour."""
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
    """Unit images by class: a block of columns a source, a row a class that has any.

    Args:
        columns: unit images ``[n, C, H, W]`` by the source's title.
        labels: their classes ``[n]``, by the same titles.
        classes: the name of each row.
    """
    rows = torch.cat(list(labels.values())).unique().tolist()
    widths = [int(torch.bincount(labels[title]).max()) for title in columns]
    # A gap between blocks is a tenth of a tile; names take two and a half.
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
        # Over a narrow block, two smaller lines; a letter of 7 points takes 0.06 inches or so.
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
        shown, size = _beside(name)
        # A name is the user's text: a dollar sign in it must not start a formula.
        figure.text(
            (names - 0.1) / total_width, height, shown, ha="right", va="center",
            fontsize=size, parse_math=False,
        )  # fmt: skip
    return figure


def _beside(name: str) -> tuple[str, int]:
    """A name as it fits beside a row, and its size: a long one in two smaller lines."""
    if len(name) <= 14:
        return name, 9
    first, *rest = wrap(name, 18)
    return "\n".join([first, *([shorten(" ".join(rest), 18)] if rest else [])]), 7


def heat(image: Tensor, values: Tensor) -> Tensor:
    """A unit image ``[C, H, W]`` under the colours of values ``[H, W]``, 0 or more: ``[3, H, W]``.

    The highest has the brightest colour.
    """
    peak = values.max().clamp(min=torch.finfo(values.dtype).tiny)
    colours = torch.tensor(INFERNO((values / peak).numpy())[..., :3], dtype=image.dtype)
    grey = image.mean(0, keepdim=True).cpu()
    return 0.3 * grey + 0.7 * colours.permute(2, 0, 1)


def highlight(image: Tensor, values: Tensor, threshold: float) -> Tensor:
    """A unit image ``[C, H, W]``, dark but where values ``[H, W]`` are high: ``[C, H, W]``.

    Args:
        threshold: of what is high, as a share of the highest value; where none is above 0,
            nothing is.
    """
    peak = values.max()
    high = (values >= threshold * peak) & (peak > 0)
    return torch.where(high, image, 0.3 * image)


class Tile(NamedTuple):
    """A unit image ``[C, H, W]``, what stands below it, and whether a red frame is around it."""

    image: Tensor
    caption: str
    framed: bool


def tiles(rows: Sequence[tuple[str, Sequence[Tile]]]) -> Figure:
    """Rows of images with captions, each row with its name."""
    side, names, below = 0.8, 1.3, 0.16
    width = names + side * max(len(row) for _, row in rows)
    height = (side + below) * len(rows) + 0.1
    figure = Figure(figsize=(width, height), dpi=120)
    for place, (name, row) in enumerate(rows):
        bottom = height - 0.05 - (side + below) * (place + 1) + below
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
    """A name cut to `length` characters, with an ellipsis where it was longer."""
    return name if len(name) <= length else name[: length - 1] + "…"
