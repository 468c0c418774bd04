"""The metrics of a set of runs: means over seeds, beside the paper's values."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from cwx.functional.spread import sample_std
from cwx.report.metric_groups import MetricGroup, group_metrics, merge_metrics
from cwx.report.run import RunContents
from cwx.report.sweep_axes import Axis, Point, is_seed
from cwx.report.tables import Cell, Column, Table, number_cell, short

# Metrics in the table of runs: at most so many, and so many per metric group.
MAX_MAIN, MAX_PER_GROUP = 6, 2
# Cells of a table.
MAX_CELLS = 60_000
STD_NOTE = "Mean ± sample standard deviation over runs that differ only in seeds. "


@dataclass(frozen=True)
class Mean:
    """The mean of a metric over repeats; its sample standard deviation if there are several."""

    mean: float
    std: float | None
    repeats: int

    @property
    def text(self) -> str:
        return short(self.mean) + ("" if self.std is None else f" ± {self.std:.2g}")


def mean_of(runs: Iterable[RunContents], name: str) -> Mean | None:
    """The mean of a metric over the runs that have it; ``None`` if there is no such run."""
    values = values_of(runs, name)
    if not values:
        return None
    return Mean(fmean(values), sample_std(values) if len(values) > 1 else None, len(values))


def values_of(runs: Iterable[RunContents], name: str) -> list[float]:
    """The values of a metric, of the runs that have it."""
    return [run.metrics[name] for run in runs if name in run.metrics]


def metric_groups_of(runs: Iterable[RunContents]) -> list[MetricGroup]:
    """Groups of all metrics that any of the runs measured."""
    runs = list(runs)
    titles = {name: title for run in runs for name, title in run.method_titles.items()}
    return group_metrics(merge_metrics(run.metrics for run in runs), titles)


def main_metrics(runs: Sequence[RunContents]) -> list[tuple[str, str]]:
    """Names and titles of the metrics for the table of runs.

    These are the first row of each metric group; metrics that most runs measured come first.
    """
    first_rows = [
        (metric.name, f"{group.title}: {metric.text}")
        for group in metric_groups_of(runs)
        for metric in [m for m in group.metrics if m.label == group.metrics[0].label][
            :MAX_PER_GROUP
        ]
    ]
    return sorted(first_rows, key=lambda main: -len(values_of(runs, main[0])))[:MAX_MAIN]


def repeats_point(points: Sequence[Point], axes: Sequence[Axis]) -> Point | None:
    """All runs as one point if they differ only in seeds."""
    runs = [run for point in points for run in point.runs]
    if len(runs) < 2 or not axes or not all(is_seed(axis) for axis in axes):
        return None
    return Point("", f"mean of {len(runs)} runs", "", runs)


def metric_tables(points: Sequence[Point], axes: Sequence[Axis]) -> list[Table]:
    """Tables of the main metrics and of all metrics: a row per metric, a column per point."""
    runs = [run for point in points for run in point.runs]
    names = merge_metrics(run.metrics for run in runs)
    if not names:
        return []
    main = [(m.name, f"{g.title}: {m.text}") for g in metric_groups_of(runs) for m in g.metrics]
    if (repeats := repeats_point(points, axes)) is not None:
        points = [repeats, *points]
    paper = _paper_values(runs)
    std_note = STD_NOTE if any(len(point.runs) > 1 for point in points) else ""
    note = std_note + ("Small, or in the last column: the paper's value." if paper else "")
    everything = [(name, name) for name in dict.fromkeys([*names, *paper])]
    return [
        *([_table("Main metrics", main, points, paper, note, is_open=True)] if main else []),
        _table("All metrics", everything, points, paper, note, is_open=not main),
    ]


def _table(
    title: str,
    metrics: Sequence[tuple[str, str]],
    points: Sequence[Point],
    paper: dict[str, float | None],
    note: str,
    *,
    is_open: bool,
) -> Table:
    """
    Args:
        metrics: names and titles.
        paper: the paper's values; ``None`` if they differ between runs.
    """
    common = {name: value for name, value in paper.items() if value is not None}
    columns = [Column("metric"), *(Column(point.text, True) for point in points)]
    if common:
        columns.append(Column("paper", True))
    rows = []
    limit = max(1, MAX_CELLS // len(columns))
    if len(metrics) > limit:
        note += f" {len(metrics) - limit:,} more metrics are in the runs' metrics.json."
    for name, text in metrics[:limit]:
        row = [Cell(text), *(_cell(point, name, own_paper=name not in common) for point in points)]
        rows.append([*row, number_cell(common.get(name))] if common else row)
    return Table(title, columns, rows, note=note, open=is_open)


def _cell(point: Point, name: str, *, own_paper: bool) -> Cell:
    """A metric's mean at a point, with the point's paper value if runs have their own."""
    mean = mean_of(point.runs, name)
    paper_values = {run.paper[name] for run in point.runs if name in run.paper}
    paper = short(min(paper_values)) if own_paper and len(paper_values) == 1 else ""
    return Cell("", paper=paper) if mean is None else Cell(mean.text, mean.mean, paper=paper)


def _paper_values(runs: Sequence[RunContents]) -> dict[str, float | None]:
    """The paper's values by name; ``None`` if not all runs have the same value."""
    values: dict[str, set[float]] = {}
    for run in runs:
        for name, value in run.paper.items():
            values.setdefault(name, set()).add(value)
    all_have_paper = all(run.paper for run in runs if run.metrics)
    return {
        name: min(different) if len(different) == 1 and all_have_paper else None
        for name, different in values.items()
    }
