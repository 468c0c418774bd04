"""One self-contained page that tells, image by image, what predictions rest on."""

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
PICTURES = "trace_"
Cells = Mapping[str, str]


def write_traces(folder: Path, *, title: str) -> None:
    """Write ``traces.html`` for the run in `folder`, if it left traces.

    Text from the run is escaped; the page loads nothing.

    Args:
        title: what the run goes by.
    """
    table = folder / TABLE
    if not table.exists():
        return
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    # Numbers stand in their file names with leading zeros.
    pictures = {
        int(file.stem.removeprefix(PICTURES)): file
        for file in folder.glob(f"figures/{PICTURES}*.png")
    }
    traces = [
        _told(list(own), pictures.get(int(number)))
        for number, own in groupby(rows, key=lambda row: row["trace"])
    ]
    environment = Environment(loader=PackageLoader("cwx.report"), autoescape=True)
    environment.filters |= {"short": short, "chance": lambda value: f"{float(value):.2f}"}
    text = environment.get_template("traces.html.j2").render(title=title, traces=traces)
    write_text(folder / PAGE, text)


def _told(rows: Sequence[Cells], picture: Path | None) -> Mapping[str, Any]:
    """What the template says of one trace."""
    neurons = [{**row, "fires": _fires(row)} for row in rows if row["channel"]]
    return {
        "picture": data_uri(picture.read_bytes(), "png") if picture else None,
        "first": rows[0],
        "right": rows[0]["predicted_class"] == rows[0]["label_class"],
        "neurons": neurons,
        "against": [neuron["channel"] for neuron in neurons if neuron["speaks"] == "against"],
    }


def _fires(row: Cells) -> list[tuple[str, str]]:
    """The classes that a neuron fires for, most often first, and how often."""
    places = ("first", "second", "third")
    pairs = [(row[f"{place}_class"], row[f"{place}_images"]) for place in places]
    return [(name, count) for name, count in pairs if count]
