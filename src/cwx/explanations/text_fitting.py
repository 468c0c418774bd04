"""Texts of figures, wrapped and shortened to their space by the measured width of the font."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

from cwx.storage.wordnet_nouns import readable


@dataclass(frozen=True)
class FittedText:
    """A text as drawn.

    Attributes:
        lines: separated by line breaks.
        points: size of the font.
        width: of the widest line in pixels, rounded up.
    """

    lines: str
    points: float
    width: int


def fit_text(
    text: str, width: int, dpi: int, *, max_lines: int, sizes: Sequence[float] = (9, 7)
) -> FittedText:
    """A text in at most `max_lines` lines of at most `width` pixels.

    It takes the first of the sizes at which it fits. Lines end between words, or inside a word
    that is longer than a line. If it fits at no size, it is shortened with an ellipsis.

    Args:
        text: on one line; runs of blanks become one blank, and ids of WordNet nouns their words.
        dpi: of the figure.
        sizes: of the font in points, in the order of preference.
    """
    words = " ".join(readable(text).split())
    for points in sizes:
        lines = _wrap(words, width, points, dpi, split_words=points == sizes[-1])
        widest = max((text_width(line, points, dpi) for line in lines), default=0)
        if len(lines) <= max_lines and widest <= width:
            return FittedText("\n".join(lines), points, widest)
    *first, last = lines[:max_lines]
    while last and text_width(f"{last}…", sizes[-1], dpi) > width:
        last = last[:-1]
    return FittedText("\n".join([*first, f"{last}…"]), sizes[-1], width)


def _wrap(text: str, width: int, points: float, dpi: int, *, split_words: bool) -> list[str]:
    """Lines of `text`, each as long as fits; longer words are split if `split_words`."""
    lines, line = [], ""
    for word in text.split():
        if line and text_width(f"{line} {word}", points, dpi) > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
        while split_words and len(line) > 1 and text_width(line, points, dpi) > width:
            fitting = _fitting_characters(line, width, points, dpi)
            lines.append(line[:fitting])
            line = line[fitting:]
    return [*lines, line] if line or not lines else lines


def _fitting_characters(text: str, width: int, points: float, dpi: int) -> int:
    """How many of the first characters fit into the width; at least 1."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle], points, dpi) <= width:
            low = middle
        else:
            high = middle - 1
    return low


def text_width(text: str, points: float, dpi: int) -> int:
    """The width of a text on one line in pixels, rounded up; runs of blanks become one blank."""
    font = FontProperties(size=points)
    with warnings.catch_warnings():
        # That the font lacks a character: drawing it warns as well.
        warnings.simplefilter("ignore", UserWarning)
        size: tuple[float, ...] = _renderer(dpi).get_text_width_height_descent(
            " ".join(text.split()) or " ", font, ismath=False
        )
    return int(size[0]) + 1


@cache
def _renderer(dpi: int) -> Any:
    # Matplotlib's renderer has no types.
    renderer: Any = RendererAgg
    return renderer(1, 1, dpi)


def shorten(name: str, length: int = 14) -> str:
    """A name, shortened to `length` characters with an ellipsis if longer.

    The id of a WordNet noun becomes its word.
    """
    text = readable(name)
    return text if len(text) <= length else text[: length - 1] + "…"
