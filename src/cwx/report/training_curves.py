"""Charts of the quantities that were logged during training and search."""

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cwx.report.run import RunContents
from cwx.report.svg_charts import Chart, Line, draw_chart
from cwx.storage.csv_files import read_csv

Points = list[tuple[int, float]]
Curves = dict[str, Points]
# The seed in expert-0/loss.
_SEED = re.compile(r"-\d+(?=/)")
# A chart is about 300 pixels wide.
MAX_POINTS = 300
# Lines that remain distinguishable.
MAX_LABELLED = 6
# What a page takes in: charts, lines of a chart, files, bytes of a file, and cells of all files.
MAX_CHARTS, MAX_LINES, MAX_FILES = 60, 40, 50
MAX_BYTES, MAX_CELLS = 16 * 2**20, 600_000
# Larger steps and values are damage.
MAX_STEP, MAX_VALUE = 2**53, 1e100


def read_curves(run: RunContents) -> Curves:
    """Every logged quantity ``<stage>/<quantity>`` as (step, value), ordered by step.

    Where a resumed run repeats a step, its value replaces the earlier one. Values that are not
    finite numbers and truncated lines are skipped.
    """
    curves: dict[str, dict[int, float]] = {}
    cells = MAX_CELLS
    files = run.files("logs/version_*/metrics.csv", MAX_FILES)
    for file in sorted(files, key=_version):
        name = file.relative_to(run.folder).as_posix()
        read = partial(read_csv, file, max_bytes=MAX_BYTES, max_cells=max(cells, 1))
        table = run.attempt(name, read)
        if table is None:
            continue
        cells -= len(table.rows) * len(table.columns)
        if table.left_out:
            run.left_out.append(f"the rest of {name} ({table.left_out})")
        for row in table.rows:
            step = _float(row.get("step"))
            if step is None or abs(step) > MAX_STEP:
                continue
            for quantity, text in row.items():
                value = _float(text) if text and quantity not in ("step", "epoch") else None
                if value is not None:
                    curves.setdefault(quantity, {})[int(step)] = value
    return {name: sorted(points.items()) for name, points in curves.items() if len(points) > 1}


def group_by_quantity(curves: Curves) -> Mapping[str, dict[str, Points]]:
    """The curves of each chart by stage: stages that differ only in their seed share a chart."""
    groups: dict[str, dict[str, Points]] = {}
    for name, points in curves.items():
        stage = name.rpartition("/")[0]
        groups.setdefault(_SEED.sub("", name), {})[stage] = points
    return groups


def curve_charts(run: RunContents) -> list[Chart]:
    """A chart for each quantity that the run logged, at most `MAX_CHARTS`."""
    groups = list(group_by_quantity(read_curves(run)).items())
    if len(groups) > MAX_CHARTS:
        run.left_out.append(f"{len(groups) - MAX_CHARTS:,} of {len(groups):,} training curves")
    charts = [
        run.attempt(f"the curve of {name[:100]}", partial(_chart, name, stages))
        for name, stages in groups[:MAX_CHARTS]
    ]
    return [chart for chart in charts if chart is not None]


def _chart(name: str, stages: Mapping[str, Points]) -> Chart:
    stage, _, quantity = name.rpartition("/")
    labelled = 1 < len(stages) <= MAX_LABELLED
    lines = [
        Line(label if labelled else "", [(float(x), y) for x, y in downsample(points)])
        for label, points in list(stages.items())[:MAX_LINES]
    ]
    first = next(iter(stages))
    if len(stages) == 1:
        note = first if first != stage else ""
    else:
        # Labelled lines have a legend.
        names = ", ".join(list(stages)[:MAX_LINES])
        more = f" {len(stages) - MAX_LINES} more are not shown." if len(stages) > MAX_LINES else ""
        note = "" if labelled else f"{len(lines)} lines, one per stage: {names}.{more}"
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


def _float(text: str | None) -> float | None:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    # A chart cannot show the largest floats.
    return value if abs(value) < MAX_VALUE else None
