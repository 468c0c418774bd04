"""Charts of the metrics of a set of runs: against a swept setting, or as means over seeds."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from cwx.report.metric_groups import Metric, MetricGroup
from cwx.report.run import RunContents
from cwx.report.svg_charts import Chart, Line, draw_chart
from cwx.report.sweep_axes import Axis, Point, format_setting
from cwx.report.sweep_tables import MAX_MAIN, mean_of, metric_groups_of, repeats_point, values_of

# At most so many lines on a chart; lines that remain distinguishable; axes with their own charts.
MAX_LINES, CLEAR_LINES, MAX_AXES = 8, 6, 3
# Charts of a group of runs.
MAX_CHARTS = 100
_SIZE = (4.2, 2.3)
_PAPER_NOTE = " ◇ the paper's value."
_RUNS_NOTE = " Dots: single runs; error bars: their standard deviation."


def metric_charts(
    points: Sequence[Point], main_axis: Axis | None, axes: Sequence[Axis]
) -> list[Chart]:
    """Charts of each metric group.

    Along the main axis: a mark per point, ± the standard deviation over repeats, and the paper's
    values. Without a main axis: bars if the runs differ only in seeds, else scatter plots against
    the numeric axes.
    """
    if len(points) < 2:
        return []
    runs = [run for point in points for run in point.runs]
    groups = metric_groups_of(runs)
    if main_axis is not None:
        blocks = len({point.block for point in points})
        parts = (part for group in groups for part in _split(group, blocks))
        measured_parts = islice(_measured_at_several(parts, points), MAX_CHARTS)
        return [_chart(*measured, main_axis) for measured in measured_parts]
    if (repeats := repeats_point(points, axes)) is not None:
        bars = (part for group in groups for part in _split(group, 1))
        return [_bar_chart(part, repeats) for part in islice(bars, MAX_CHARTS)]
    numeric = [axis for axis in axes if axis.numeric and len(axis.values) > 2][:MAX_AXES]
    return [_scatter_chart(group, runs, axis) for axis in numeric for group in groups[:MAX_MAIN]]


def _measured_at_several(
    groups: Iterable[MetricGroup], points: Sequence[Point]
) -> Iterator[tuple[MetricGroup, list[Point]]]:
    """The groups that were measured at several points, with these points."""
    for group in groups:
        names = [metric.name for metric in group.metrics]
        # A block without a value would use up one of the chart's lines.
        measured = [p for p in points if any(values_of(p.runs, name) for name in names)]
        if len(measured) > 1:
            yield group, measured


def _split(group: MetricGroup, blocks: int) -> list[MetricGroup]:
    """The group; split by rows or columns if it has too many lines, into as few as possible."""
    if len(group.columns) < 2 or blocks * len(group.metrics) <= CLEAR_LINES:
        return [group]
    if len(group.columns) < len(group.labels):
        return [group.with_column(column) for column in group.columns]
    return [group.with_label(label) for label in group.labels]


def _chart(group: MetricGroup, points: Sequence[Point], axis: Axis) -> Chart:
    blocks = list(dict.fromkeys(point.block for point in points))
    wanted = [(block, metric) for block in blocks for metric in group.metrics]
    if len(wanted) > MAX_LINES:
        wanted = [(block, group.metrics[0]) for block in blocks]
    candidates = [
        _line(group, metric, [p for p in points if p.block == block], axis, block)
        for block, metric in wanted[:MAX_LINES]
    ]
    lines = [line for line in candidates if line.points]
    left_out = len(blocks) * len(group.metrics) - len(wanted[:MAX_LINES])
    ticks = [] if axis.numeric else [format_setting(value) for value in axis.values]
    values = "; ".join(f"{line.label} {_describe_line(line, axis)}" for line in lines)
    return draw_chart(
        group.title, lines, x_label=axis.title, description=f"{group.title}: {values}",
        note=_note(group, lines, left_out), ticks=ticks, size=_SIZE,
    )  # fmt: skip


def _line(
    group: MetricGroup, metric: Metric, points: Sequence[Point], axis: Axis, block: str
) -> Line:
    means = [
        (_x(axis, point.runs[0]), point.runs, mean)
        for point in points
        if (mean := mean_of(point.runs, metric.name)) is not None
    ]
    return Line(
        ", ".join(part for part in (metric.text, block) if part),
        [(x, mean.mean) for x, _, mean in means],
        std=[mean.std or 0.0 for *_, mean in means],
        single=[(x, y) for x, of, m in means if m.repeats > 1 for y in values_of(of, metric.name)],
        paper=[(x, y) for x, runs, _ in means for y in _paper_value(group, metric, runs)],
    )


def _paper_value(group: MetricGroup, metric: Metric, runs: Iterable[RunContents]) -> set[float]:
    """The paper's value for the runs; empty if it has none or several."""
    values = {group.paper_value(metric.name, run.paper) for run in runs}
    known = {value for value in values if value is not None}
    return known if len(known) == 1 else set()


def _bar_chart(group: MetricGroup, repeats: Point) -> Chart:
    """Bars of the means over seeds, with their standard deviations."""
    metrics = group.metrics[:MAX_LINES]
    lines = [_bar(group, metric, repeats.runs) for metric in metrics]
    values = [
        f"{line.label} {line.points[0][1]:.3g} ± {line.std[0]:.2g}"
        + "".join(f", paper {y:.3g}" for _, y in line.paper)
        for line in lines
    ]
    return draw_chart(
        group.title, lines, x_label="", description=f"{group.title}: {'; '.join(values)}",
        note=_note(group, lines, len(group.metrics) - len(lines)), ticks=[repeats.label],
        size=_SIZE,
    )  # fmt: skip


def _bar(group: MetricGroup, metric: Metric, runs: Sequence[RunContents]) -> Line:
    mean = mean_of(runs, metric.name)
    # Every metric of a group was measured by some run.
    assert mean is not None
    return Line(
        metric.text,
        [(0.0, mean.mean)],
        std=[mean.std or 0.0],
        single=[(0.0, y) for y in values_of(runs, metric.name)],
        paper=[(0.0, y) for y in _paper_value(group, metric, runs)],
    )


def _scatter_chart(group: MetricGroup, runs: Sequence[RunContents], axis: Axis) -> Chart:
    metric = group.metrics[0]
    points = [
        (_x(axis, run), run.metrics[metric.name]) for run in runs if metric.name in run.metrics
    ]
    line = Line("", sorted(points))
    title = f"{group.title} against {axis.title}"
    return draw_chart(
        title, [line], x_label=axis.title,
        description=f"{group.title}, {metric.text}, against {axis.title}: "
        f"{_describe_line(line, axis)}",
        note=f"Shown: {metric.text}. {group.meaning}", joined=False, size=_SIZE,
    )  # fmt: skip


def _note(group: MetricGroup, lines: Sequence[Line], left_out: int) -> str:
    more = f" {left_out} more in the table." if left_out else ""
    paper = _PAPER_NOTE if any(line.paper for line in lines) else ""
    single = _RUNS_NOTE if any(line.single for line in lines) else ""
    return group.meaning + more + paper + single


def _x(axis: Axis, run: RunContents) -> float:
    value = axis.value_of(run)
    return float(value) if axis.numeric else float(axis.index_of(run))


def _describe_line(line: Line, axis: Axis) -> str:
    paper = f", paper {_describe_points(line.paper, axis)}" if line.paper else ""
    return _describe_points(line.points, axis) + paper


def _describe_points(points: Sequence[tuple[float, float]], axis: Axis) -> str:
    settings = [
        format_setting(x) if axis.numeric else format_setting(axis.values[int(x)])
        for x, _ in points
    ]
    return ", ".join(f"{y:.3g} at {x}" for x, (_, y) in zip(settings, points, strict=True))
