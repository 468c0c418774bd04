"""The page of traces: the neurons that single predictions depend on."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader

from cwx.report import file_readers
from cwx.report.figure_files import embed
from cwx.report.render import displayable
from cwx.report.run import RunContents
from cwx.report.tables import short
from cwx.storage.atomic import write_text

PAGE = "traces.html"
TABLE = "tables/traces.csv"
FIGURE_PREFIX = "trace_"
# What the page takes in: figures, their bytes, and pixels of those that are reduced.
MAX_FIGURES, MAX_BYTES, MAX_PIXELS = 300, 24 * 2**20, 100_000_000
Row = Mapping[str, str]


def write_traces(run: RunContents, *, title: str) -> None:
    """Write ``traces.html`` for a run, if it has traces.

    Text from the run is escaped; the page loads nothing.

    Args:
        title: the run's experiment.
    """
    table = run.read(TABLE, file_readers.table)
    if table is None:
        return
    if table.left_out:
        run.left_out.append(f"a part of the traces ({table.left_out})")
    traces = run.attempt(TABLE, lambda: list(_traces(run, table.rows)))
    if traces is None:
        return
    environment = Environment(loader=PackageLoader("cwx.report"), autoescape=True)
    environment.filters |= {
        "short": short,
        "probability": lambda value: f"{float(value):.2f}",
        "signed": lambda value: f"{float(value):+.2f}".replace("-", "−"),
    }
    template = environment.get_template("traces.html.j2")
    text = run.attempt(TABLE, lambda: template.render(title=title, traces=traces))
    if text is not None:
        write_text(run.folder / PAGE, displayable(text))


def _traces(run: RunContents, rows: Sequence[Row]) -> Iterator[Mapping[str, Any]]:
    # The numbers in file names have leading zeros.
    figures = {
        int(file.stem.removeprefix(FIGURE_PREFIX)): file
        for file in run.files(f"figures/{FIGURE_PREFIX}*.png", MAX_FIGURES)
        if file.stem.removeprefix(FIGURE_PREFIX).isdecimal()
    }
    bytes_left, pixels_left = MAX_BYTES, MAX_PIXELS
    for number, trace_rows in groupby(rows, key=lambda row: row["trace"]):
        file, figure = figures.get(int(number)), None
        if file is not None:
            path = f"figures/{file.name}"
            figure = run.attempt(path, partial(embed, file, bytes_left, pixels_left))
        if figure is not None:
            bytes_left -= len(figure.content)
            pixels_left -= figure.decoded
        yield _trace(list(trace_rows), figure.uri if figure is not None else None)


def _trace(rows: Sequence[Row], figure: str | None) -> Mapping[str, Any]:
    """The template's values of one trace.

    Args:
        rows: one per neuron.
        figure: as a data URI.
    """
    neurons = [
        {**row, "top_classes": _top_classes(row), "contributions": _contributions(row)}
        for row in rows
        if row["channel"]
    ]
    return {
        "figure": figure,
        "first": rows[0],
        "correct": rows[0]["predicted_class"] == rows[0]["label_class"],
        "neurons": neurons,
        "against": [neuron["channel"] for neuron in neurons if neuron["speaks"] == "against"],
    }


def _contributions(row: Row) -> list[tuple[str, str, str]]:
    """What a class is to the image, its name, and the contribution to its logit.

    The true and the target class are left out if they are unknown or predicted. Runs of earlier
    versions have no contributions.
    """
    classes: dict[str, tuple[str, str, str]] = {}
    for role in ("predicted", "true", "target"):
        name = row[f"{'label' if role == 'true' else role}_class"]
        if name and row.get(f"{role}_logit"):
            classes.setdefault(name, (role, name, row[f"{role}_logit"]))
    return list(classes.values())


def _top_classes(row: Row) -> list[tuple[str, str]]:
    """The most frequent classes of a neuron's top images, with their numbers of images."""
    ranks = ("first", "second", "third")
    pairs = [(row[f"{rank}_class"], row[f"{rank}_images"]) for rank in ranks]
    return [(name, count) for name, count in pairs if count]
