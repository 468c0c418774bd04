"""Markdown tables and files of results, without torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Cell = float | str | None


def table_lines(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """The lines of a Markdown table."""
    text = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *text, strict=True)]
    return [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in (list(head), ["-" * width for width in widths], *text)
    ]


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else f"{cell:.3g}"


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically: a killed benchmark leaves the last complete one."""
    write_atomically(file, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def write_atomically(file: Path, text: str) -> None:
    new = file.with_name(f".{file.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)
