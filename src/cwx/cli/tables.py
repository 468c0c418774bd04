"""Text for a terminal: tables of plain words, whatever names runs bring."""

import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime

Cell = str | int | float | None
_NARROWEST = 20


def plain(value: object) -> str:
    r"""A value on one line, in characters that a terminal shows and does not obey.

    >>> print(plain("red \x1b[31m and\na line"))
    red \x1b[31m and\na line
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(text: str) -> None:
    """Print lines of plain text."""
    # A name that the terminal's encoding lacks must not end the command.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    shrink: int,
    spare: Sequence[int] = (),
) -> str:
    """Columns side by side, those of numbers to the right.

    Args:
        header: of each column; a slash in it breaks the line.
        shrink: the column that is cut to fit into a terminal; nothing is cut in a file or a pipe.
        spare: columns that are left out, the first of them first, where that cut one would be
            narrower than is of use.
    """
    tops = [plain(name).split("/") for name in header]
    height = max(map(len, tops))
    lines = [[top[level] if level < len(top) else "" for top in tops] for level in range(height)]
    lines += [[_shown(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    if sys.stdout.isatty():
        least = min(widths[shrink], _NARROWEST)
        room = shutil.get_terminal_size().columns - sum(widths) - 2 * (len(widths) - 1)
        if spare and widths[shrink] + room < least:
            kept = [place for place in range(len(header)) if place != spare[0]]
            return table(
                [header[place] for place in kept],
                [[row[place] for place in kept] for row in rows],
                shrink=kept.index(shrink),
                spare=[kept.index(place) for place in spare[1:]],
            )
        widths[shrink] = max(least, widths[shrink] + min(0, room))
    right = [not any(isinstance(row[place], str) for row in rows) for place in range(len(header))]
    return "\n".join(
        "  ".join(_fitted(*cell) for cell in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    )


def when(moment: datetime) -> str:
    """In local time, to the minute."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else plain(cell)


def _fitted(text: str, width: int, right: bool) -> str:
    if _width(text) > width:
        while _width(text) > width - 1:
            text = text[:-1]
        text += "…"
    fill = " " * (width - _width(text))
    return fill + text if right else text + fill


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
