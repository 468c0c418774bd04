"""What was logged while a run trained and searched, as charts."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cwx.report.svg_charts import Chart, Line, drawn

Points = list[tuple[int, float]]
Curves = dict[str, Points]
# As in expert-0/loss.
_SEED = re.compile(r"-\d+(?=/)")
# A chart is some 300 pixels wide: more points would fall together.
POINTS = 300
# More lines than this are told apart no longer.
TOLD_APART = 6


def read_curves(folder: Path) -> Curves:
    """Every logged quantity as (step, value); a resumed run's later start replaces its earlier one.

    Quantities are named ``<stage>/<quantity>``. What is no number is left out, and so is a line
    that was cut while it was written.
    """
    curves: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("logs/version_*/metrics.csv"), key=_version):
        with file.open(newline="", errors="replace") as lines:
            for row in csv.DictReader(lines):
                step = _float(row.get("step"))
                for name, text in row.items():
                    value = _float(text)
                    if value is not None and step is not None and name not in ("step", "epoch"):
                        curves.setdefault(str(name), {})[int(step)] = value
    return {name: sorted(points.items()) for name, points in curves.items() if len(points) > 1}


def charts(curves: Curves) -> Mapping[str, dict[str, Points]]:
    """Lines that belong together, by their stage: the same quantity of stages that differ by a
    number at their end alone, which is a seed of experts.
    """
    found: dict[str, dict[str, Points]] = {}
    for name, points in curves.items():
        stage = name.rpartition("/")[0]
        found.setdefault(_SEED.sub("", name), {})[stage] = points
    return found


def draw(curves: Curves) -> list[Chart]:
    """A chart for each quantity."""
    return [_chart(name, stages) for name, stages in charts(curves).items()]


def _chart(name: str, stages: Mapping[str, Points]) -> Chart:
    stage, _, quantity = name.rpartition("/")
    apart = 1 < len(stages) <= TOLD_APART
    lines = [
        Line(label if apart else "", [(float(x), y) for x, y in thinned(points)])
        for label, points in stages.items()
    ]
    only = next(iter(stages))
    if len(stages) == 1:
        note = only if only != stage else ""
    else:
        # Those that have names have a legend.
        note = "" if apart else f"{len(stages)} lines, one a stage: {', '.join(stages)}."
    ends = ", ".join(f"{points[-1][1]:.3g}" for points in list(stages.values())[:TOLD_APART])
    says = f"{quantity} of {stage} by step; at the end {ends}"
    return drawn(f"{stage} · {quantity}", lines, across="step", says=says, note=note)


def thinned(points: Points, most: int = POINTS) -> Points:
    """At most `most` of the points: of each stretch its lowest and its highest, so that no peak
    goes missing.
    """
    if len(points) <= most:
        return points
    size = math.ceil(len(points) / (most // 2))
    kept = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        ends = {min(stretch, key=_value), max(stretch, key=_value)}
        kept += sorted(ends)
    return kept


def _value(point: tuple[int, float]) -> float:
    return point[1]


def _version(file: Path) -> int:
    number = file.parent.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1


def _float(text: str | Sequence[str] | None) -> float | None:
    try:
        value = float(text) if isinstance(text, str) and text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
