"""Reading CSV that may be damaged or huge, in bounded time and memory."""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cwx.storage.quantities import size
from cwx.storage.regular_files import open_regular

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class CsvTable:
    """The first rows of a CSV file.

    Attributes:
        columns: the names in the header line.
        rows: cells by column; cells that a row lacks are empty.
        left_out: the part of the file that was not read, as text; empty if all was read.
    """

    columns: list[str]
    rows: Rows
    left_out: str = ""


def read_csv(file: Path, *, max_bytes: int, max_cells: int) -> CsvTable:
    """The first rows of a CSV file, as many as the limits allow.

    Bytes that are not UTF-8 are read as U+FFFD.

    Args:
        max_bytes: of the file.
        max_cells: in all rows.

    Raises:
        OSError: the file is missing or no regular file.
        ValueError: the file is not CSV, or not even its first row is within the limits.
    """
    text, total = _head(file, max_bytes)
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        columns = next(reader, [])
        limit = max_cells // max(1, len(columns))
        if len(columns) > max_cells:
            raise ValueError(f"{file.name} has {len(columns):,} columns, more than {max_cells:,}")
        rows = list(_rows(reader, columns, limit + 1))
    except csv.Error as error:
        raise ValueError(f"{file.name} is not CSV: {error}") from error
    complete = total <= max_bytes and len(rows) <= limit
    shown = rows[:limit]
    left_out = "" if complete else f"The first {len(shown):,} rows of a file of {size(total)}."
    return CsvTable(columns, shown, left_out)


def _head(file: Path, max_bytes: int) -> tuple[str, int]:
    """The complete lines in the first bytes of a file, and the size of the file."""
    with open_regular(file) as opened:
        content = opened.read(max_bytes + 1)
        total = max(len(content), os.fstat(opened.fileno()).st_size)
    if len(content) > max_bytes:
        end = content.rfind(b"\n", 0, max_bytes)
        if end < 0:
            raise ValueError(f"the first line of {file.name} is longer than {size(max_bytes)}")
        content = content[: end + 1]
    return content.decode(errors="replace"), total


def _rows(reader: Iterator[list[str]], columns: list[str], limit: int) -> Iterator[dict[str, str]]:
    empty = dict.fromkeys(columns, "")
    for cells in reader:
        if cells:
            yield {**empty, **dict(zip(columns, cells, strict=False))}
            limit -= 1
        if limit == 0:
            return
