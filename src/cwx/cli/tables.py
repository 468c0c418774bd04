"""Text for a terminal: tables, with control characters in names escaped."""

import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import TextIO

from cwx.errors import printable

Cell = str | int | float | None
_NARROWEST = 20


def print_text(text: str) -> None:
    """Print text; characters that the terminal's encoding lacks are escaped."""
    _write(text, sys.stdout)


def print_remark(text: str) -> None:
    """Print a line about what a command leaves out, apart from its output."""
    _write(f"cwx: {printable(text)}", sys.stderr)


def _write(text: str, stream: TextIO) -> None:
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    shrink: int,
    spare: Sequence[int] = (),
) -> str:
    """Rows in aligned columns; columns of numbers are right-aligned.

    Args:
        header: the title of each column; a slash breaks its line.
        shrink: index of the column that is cut to the terminal's width; nothing is cut in a file
            or a pipe.
        spare: indices of columns to leave out, in this order, while column `shrink` would be
            narrower than `_NARROWEST` characters.
    """
    titles = [printable(name).split("/") for name in header]
    height = max(map(len, titles))
    lines = [
        [title[level] if level < len(title) else "" for title in titles] for level in range(height)
    ]
    lines += [[_format(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    if sys.stdout.isatty():
        least = min(widths[shrink], _NARROWEST)
        room = shutil.get_terminal_size().columns - sum(widths) - 2 * (len(widths) - 1)
        if spare and widths[shrink] + room < least:
            columns = [column for column in range(len(header)) if column != spare[0]]
            return table(
                [header[column] for column in columns],
                [[row[column] for column in columns] for row in rows],
                shrink=columns.index(shrink),
                spare=[columns.index(column) for column in spare[1:]],
            )
        widths[shrink] = max(least, widths[shrink] + min(0, room))
    right = [not any(isinstance(row[i], str) for row in rows) for i in range(len(header))]
    return "\n".join(
        "  ".join(_fit(*cell) for cell in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    )


def local_time(moment: datetime) -> str:
    """A time in the local time zone, to the minute."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _format(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else printable(cell)


def _fit(text: str, width: int, right: bool) -> str:
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
