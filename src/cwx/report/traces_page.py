"""The page of traces: the neurons that single predictions depend on."""

import csv
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from cwx.report.inline_images import data_uri
from cwx.report.tables import short
from cwx.storage.atomic import write_text

PAGE = "traces.html"
TABLE = "tables/traces.csv"
FIGURE_PREFIX = "trace_"
Row = Mapping[str, str]


def write_traces(folder: Path, *, title: str) -> None:
    """Write ``traces.html`` for the run in `folder`, if it has traces.

    Text from the run is escaped; the page loads nothing.

    Args:
        title: the run's experiment.
    """
    table = folder / TABLE
    if not table.exists():
        return
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    # The numbers in file names have leading zeros.
    figures = {
        int(file.stem.removeprefix(FIGURE_PREFIX)): file
        for file in folder.glob(f"figures/{FIGURE_PREFIX}*.png")
    }
    traces = [
        _trace(list(trace_rows), figures.get(int(number)))
        for number, trace_rows in groupby(rows, key=lambda row: row["trace"])
    ]
    environment = Environment(loader=PackageLoader("cwx.report"), autoescape=True)
    environment.filters |= {"short": short, "probability": lambda value: f"{float(value):.2f}"}
    text = environment.get_template("traces.html.j2").render(title=title, traces=traces)
    write_text(folder / PAGE, text)


def _trace(rows: Sequence[Row], figure: Path | None) -> Mapping[str, Any]:
    """The template's values of one trace.

    Args:
        rows: one per neuron.
    """
    neurons = [{**row, "top_classes": _top_classes(row)} for row in rows if row["channel"]]
    return {
        "figure": data_uri(figure.read_bytes(), "png") if figure else None,
        "first": rows[0],
        "correct": rows[0]["predicted_class"] == rows[0]["label_class"],
        "neurons": neurons,
        "against": [neuron["channel"] for neuron in neurons if neuron["speaks"] == "against"],
    }


def _top_classes(row: Row) -> list[tuple[str, str]]:
    """The most frequent classes of a neuron's top images, with their numbers of images."""
    ranks = ("first", "second", "third")
    pairs = [(row[f"{rank}_class"], row[f"{rank}_images"]) for rank in ranks]
    return [(name, count) for name, count in pairs if count]
