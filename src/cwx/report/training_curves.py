"""Charts of the quantities that were logged during training and search."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cwx.report.svg_charts import Chart, Line, draw_chart

Points = list[tuple[int, float]]
Curves = dict[str, Points]
# The seed in expert-0/loss.
_SEED = re.compile(r"-\d+(?=/)")
# A chart is about 300 pixels wide.
MAX_POINTS = 300
# Lines that remain distinguishable.
MAX_LABELLED = 6


def read_curves(folder: Path) -> Curves:
    """Every logged quantity ``<stage>/<quantity>`` as (step, value), ordered by step.

    Where a resumed run repeats a step, its value replaces the earlier one. Values that are not
    finite numbers and truncated lines are skipped.
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


def group_by_quantity(curves: Curves) -> Mapping[str, dict[str, Points]]:
    """The curves of each chart by stage: stages that differ only in their seed share a chart."""
    groups: dict[str, dict[str, Points]] = {}
    for name, points in curves.items():
        stage = name.rpartition("/")[0]
        groups.setdefault(_SEED.sub("", name), {})[stage] = points
    return groups


def curve_charts(curves: Curves) -> list[Chart]:
    """A chart for each quantity."""
    return [_chart(name, stages) for name, stages in group_by_quantity(curves).items()]


def _chart(name: str, stages: Mapping[str, Points]) -> Chart:
    stage, _, quantity = name.rpartition("/")
    labelled = 1 < len(stages) <= MAX_LABELLED
    lines = [
        Line(label if labelled else "", [(float(x), y) for x, y in downsample(points)])
        for label, points in stages.items()
    ]
    first = next(iter(stages))
    if len(stages) == 1:
        note = first if first != stage else ""
    else:
        # Labelled lines have a legend.
        note = "" if labelled else f"{len(stages)} lines, one per stage: {', '.join(stages)}."
    last = ", ".join(f"{points[-1][1]:.3g}" for points in list(stages.values())[:MAX_LABELLED])
    description = f"{quantity} of {stage} by step; last value {last}"
    title = f"{stage} · {quantity}"
    return draw_chart(title, lines, x_label="step", description=description, note=note)


def downsample(points: Points, count: int = MAX_POINTS) -> Points:
    """At most `count` of the points: the minimum and the maximum of each interval.

    This keeps every peak.
    """
    if len(points) <= count:
        return points
    size = math.ceil(len(points) / (count // 2))
    kept = []
    for start in range(0, len(points), size):
        interval = points[start : start + size]
        extremes = {min(interval, key=_value), max(interval, key=_value)}
        kept += sorted(extremes)
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
