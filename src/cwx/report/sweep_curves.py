"""CS of neurons against LC in a set of runs: means over seeds, a line per point of the sweep."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cwx.functional.spread import sample_std
from cwx.report import file_readers
from cwx.report.metric_labels import NEURON_LABELS
from cwx.report.run import RunContents
from cwx.report.svg_charts import Chart, Line, draw_chart
from cwx.report.sweep_axes import Axis, Point
from cwx.report.sweep_charts import MAX_LINES
from cwx.report.sweep_tables import MAX_CELLS, Mean, repeats_point
from cwx.report.tables import Cell, Column, Table

_FILE = "tables/neurons_curve.csv"
_TITLE = "CS₁ and CS₂ against LC, by network"
_SIZE = (4.2, 2.3)
# The points of all lines spread over this fraction of a bin, so that their bars do not overlap.
_APART = 0.6
_SPREAD = "± the sample standard deviation over runs that differ only in seeds"
# Number of neurons of a bin, beside the measures.
_NEURONS = "neurons"
_LABELS = {**NEURON_LABELS, _NEURONS: "neurons of the bin"}

# Lower and upper LC of a bin.
_Bin = tuple[float, float]
# A value by network, measure and bin.
_Values = Mapping[tuple[str, str, _Bin], float]


@dataclass(frozen=True)
class LevelCurves:
    """Charts of CS against LC, and the table of their values; both empty without values."""

    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()


def level_curves(points: Sequence[Point], axes: Sequence[Axis]) -> LevelCurves:
    """Means of the tables ``neurons_curve`` of the runs, where several runs have the same bins.

    Args:
        points: of the sweep, in order.
        axes: the swept settings.
    """
    if (repeats := repeats_point(points, axes)) is not None:
        points = [repeats]
    by_run = {id(run): _read(run) for point in points for run in point.runs}
    widths = Counter(_width(values) for values in by_run.values() if values)
    if widths.total() < 2:
        return LevelCurves()
    common = widths.most_common(1)[0][0]
    left_out = widths.total() - widths[common]
    measured = [
        (point.text, kept)
        for point in points
        if (kept := [v for run in point.runs if (v := by_run[id(run)]) and _width(v) == common])
    ]
    keys = sorted({key for _, runs in measured for values in runs for key in values}, key=_order)
    note = f" {left_out} runs with other bins are left out." if left_out else ""
    curves = list(dict.fromkeys((network, name) for network, name, _ in keys))
    return LevelCurves(
        [_chart(network, name, measured, keys, note) for network, name in curves],
        [_table(measured, keys, note)],
    )


def _read(run: RunContents) -> _Values:
    """The run's values; empty without a table of bins."""
    table = run.read(_FILE, file_readers.table)
    if table is None or not {"network", "from", "to", _NEURONS} <= {*table.columns}:
        return {}
    measures = [name for name in (_NEURONS, *NEURON_LABELS) if name in table.columns]
    return run.attempt(_FILE, lambda: {
        (row["network"], name, (float(row["from"]), float(row["to"]))): float(row[name])
        for row in table.rows
        for name in measures
        if name != "lc" and row[name]
    }) or {}  # fmt: skip


def _width(values: _Values) -> float:
    low, high = next(iter(values))[2]
    return round(high - low, 6)


def _order(key: tuple[str, str, _Bin]) -> tuple[bool, str, int, _Bin]:
    """The expert first; measures in the order of their labels, before the number of neurons."""
    network, name, of_bin = key
    return network != "expert", network, list(_LABELS).index(name), of_bin


def _chart(
    network: str,
    name: str,
    measured: Sequence[tuple[str, Sequence[_Values]]],
    keys: Sequence[tuple[str, str, _Bin]],
    note: str,
) -> Chart:
    bins = [key for key in keys if key[:2] == (network, name)]
    drawn = measured[:MAX_LINES]
    lines: list[Line] = []
    values: list[str] = []
    for number, (text, runs) in enumerate(drawn):
        means = [(key[2], mean) for key in bins if (mean := _mean(runs, key))]
        shift = _APART * ((number + 0.5) / len(drawn) - 0.5)
        xy = [((low + high) / 2 + shift * (high - low), mean.mean) for (low, high), mean in means]
        if means:
            at = [f"{mean.mean:.3g} at {(low + high) / 2:.3g}" for (low, high), mean in means]
            values.append(f"{text} {', '.join(at)}")
            lines.append(Line(text or network, xy, std=[mean.std or 0.0 for _, mean in means]))
    title = f"{network}: {_LABELS[name]}"
    more = len(measured) - len(drawn)
    return draw_chart(
        title, lines, x_label="LC", description=f"{title} against LC: {'; '.join(values)}",
        note=f"Means of bins of LC, {_SPREAD}."
        + (f" {more} more in the table." if more else "") + note,
        size=_SIZE, y_limits=None if name == _NEURONS else (0, 1.02),
    )  # fmt: skip


def _mean(runs: Sequence[_Values], key: tuple[str, str, _Bin]) -> Mean | None:
    """The mean over the runs that have neurons in the bin."""
    values = [run[key] for run in runs if key in run]
    if not values:
        return None
    return Mean(fmean(values), sample_std(values) if len(values) > 1 else None, len(values))


def _table(
    measured: Sequence[tuple[str, Sequence[_Values]]],
    keys: Sequence[tuple[str, str, _Bin]],
    note: str,
) -> Table:
    columns = [
        Column("network"), Column("measure"), Column("LC"),
        *(Column(text or "mean", True) for text, _ in measured),
    ]  # fmt: skip
    limit = max(1, MAX_CELLS // len(columns))
    rows = [
        [
            Cell(network), Cell(_LABELS[name]),
            Cell(f"{of_bin[0]:.3g} to {of_bin[1]:.3g}"),
            *(_cell(_mean(runs, (network, name, of_bin)), runs) for _, runs in measured),
        ]
        for network, name, of_bin in keys[:limit]
    ]  # fmt: skip
    text = (
        f"Means {_SPREAD}; in parentheses, if not all runs have neurons in the bin: how many have."
    )
    left_out = f" {len(keys) - limit:,} more rows are in {_FILE}." if len(keys) > limit else ""
    return Table(_TITLE, columns, rows, note=text + note + left_out, open=False)


def _cell(mean: Mean | None, runs: Sequence[_Values]) -> Cell:
    if mean is None:
        return Cell("")
    some = f" ({mean.repeats} of {len(runs)})" if mean.repeats < len(runs) else ""
    return Cell(mean.text + some, mean.mean)
