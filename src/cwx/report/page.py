"""One self-contained page for a run: pictures, numbers, tables, curves and provenance."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cwx.files import write_text
from cwx.report.pictures import data_url
from cwx.report.traces import PICTURES, write_traces
from cwx.results import PAPER, read_status

PAGE = "report.html"
Points = list[tuple[int, float]]
Curves = dict[str, Points]
# As in expert-0/loss.
_SEED = re.compile(r"-\d+(?=/)")


def write_page(folder: Path) -> Path:
    """Write ``report.html`` for the run in `folder`, from what the run left there.

    Traces of single predictions have a page beside it.

    Text from the run (class names, settings) is escaped; the page loads nothing.

    Raises:
        ValueError: the folder is not a run.
    """
    status = read_status(folder)
    environment = Environment(loader=PackageLoader("cwx.report"), autoescape=True)
    environment.filters |= {"short": _short, "chance": lambda value: f"{float(value):.2f}"}
    traces = write_traces(folder, environment, title=status["experiment"])
    pictures = [f for f in sorted(folder.glob("figures/*.png")) if not f.match(f"{PICTURES}*")]
    metrics = folder / "metrics.json"
    tables = {f.relative_to(folder).as_posix(): f for f in sorted(folder.glob("tables/*.csv"))}
    paper = tables.pop(PAPER, None)
    text = environment.get_template("page.html.j2").render(
        status=status,
        numbers=json.loads(metrics.read_text()) if metrics.exists() else {},
        pictures=[(f.stem, data_url(f.read_bytes())) for f in pictures],
        traces=traces,
        curves=[
            (n, data_url(_chart(n, lines))) for n, lines in charts(read_curves(folder)).items()
        ],
        paper=_rows(paper) if paper else [],
        tables=[(f.stem, _rows(f)) for f in tables.values()],
        configuration=_text(folder / ".hydra" / "config.yaml"),
        overrides=_text(folder / ".hydra" / "overrides.yaml"),
    )
    write_text(folder / PAGE, text)
    return folder / PAGE


def read_curves(folder: Path) -> Curves:
    """Every logged quantity as (step, value); a resumed run's later start replaces its earlier one.

    Quantities are named ``<stage>/<quantity>``.
    """
    curves: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("logs/version_*/metrics.csv"), key=_version):
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                for name, value in row.items():
                    if value and row.get("step") and name not in ("step", "epoch"):
                        curves.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items() if len(points) > 1}


def charts(curves: Curves) -> Mapping[str, list[Points]]:
    """Lines that belong together: the same quantity of stages that differ by their seed alone."""
    found: dict[str, list[Points]] = {}
    for name, points in curves.items():
        found.setdefault(_SEED.sub("", name), []).append(points)
    return found


def _version(file: Path) -> int:
    return int(file.parent.name.removeprefix("version_"))


def _chart(name: str, lines: Iterable[Points]) -> bytes:
    figure = Figure(figsize=(3.2, 1.9), dpi=110, layout="constrained")
    axes = figure.subplots()
    for points in lines:
        axes.plot(*zip(*points, strict=True), linewidth=1.2)
    axes.set_title(name, fontsize=8, parse_math=False)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _rows(file: Path) -> list[Mapping[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _short(value: Any) -> str:
    """A number with four digits; a whole one, or anything else, as it is."""
    try:
        if str(value).isdecimal():
            return str(value)
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return "" if value is None else str(value)
