"""The numbers of a set of runs as charts: against what was swept, or over repeated seeds."""

from collections.abc import Iterable, Iterator, Sequence

from cwx.report.metric_groups import Entry, Family
from cwx.report.run import Run
from cwx.report.svg_charts import Chart, Line, drawn
from cwx.report.sweep_axes import Axis, Point, worded
from cwx.report.sweep_tables import MAIN, families_of, measured, repeats, values

# Lines on a chart at most, lines that can still be told apart at a glance, and settings with charts
# of their own.
LINES, CLEAR, AXES = 8, 6, 3
_SIZE = (4.2, 2.3)
_PAPER = " ◇ the paper’s figure."
_SINGLE = " Dots: single runs, ± their standard deviation."


def charts_of(points: Sequence[Point], across: Axis | None, axes: Sequence[Axis]) -> list[Chart]:
    """Each family of numbers along what was swept; a mark for each point, ± over repeats, and what
    a paper reports.
    """
    if len(points) < 2:
        return []
    runs = [run for point in points for run in point.runs]
    found = families_of(runs)
    if across is not None:
        blocks = len({point.block for point in points})
        parts = (part for family in found for part in _parts(family, blocks))
        return [_chart(*told, across) for told in _told_apart(parts, points)]
    if (together := repeats(points, axes)) is not None:
        return [_repeated(part, together) for family in found for part in _parts(family, 1)]
    numeric = [axis for axis in axes if axis.numeric and len(axis.values) > 2][:AXES]
    return [_scattered(family, runs, axis) for axis in numeric for family in found[:MAIN]]


def _told_apart(
    parts: Iterable[Family], points: Sequence[Point]
) -> Iterator[tuple[Family, list[Point]]]:
    """The parts that were measured at several points, with these."""
    for part in parts:
        names = [entry.name for entry in part.entries]
        # A block that measured none of it would take the place of others.
        measuring = [p for p in points if any(values(p.runs, name) for name in names)]
        if len(measuring) > 1:
            yield part, measuring


def _parts(family: Family, blocks: int) -> list[Family]:
    """The family; in parts where all would be too many lines, rather few parts than many."""
    if len(family.columns) < 2 or blocks * len(family.entries) <= CLEAR:
        return [family]
    if len(family.columns) < len(family.labels):
        return [family.under(column) for column in family.columns]
    return [family.of(label) for label in family.labels]


def _chart(family: Family, points: Sequence[Point], across: Axis) -> Chart:
    blocks = list(dict.fromkeys(point.block for point in points))
    wanted = [(block, entry) for block in blocks for entry in family.entries]
    if len(wanted) > LINES:
        wanted = [(block, family.entries[0]) for block in blocks]
    every = [
        _line(family, entry, [p for p in points if p.block == block], across, block)
        for block, entry in wanted[:LINES]
    ]
    lines = [line for line in every if line.points]
    left_out = len(blocks) * len(family.entries) - len(wanted[:LINES])
    ticks = [] if across.numeric else [worded(value) for value in across.values]
    spoken = "; ".join(f"{line.label} {_spoken(line, across)}" for line in lines)
    return drawn(
        family.title, lines, across=across.title, says=f"{family.title}: {spoken}",
        note=_note(family, lines, left_out), ticks=ticks, size=_SIZE,
    )  # fmt: skip


def _line(family: Family, entry: Entry, points: Sequence[Point], across: Axis, block: str) -> Line:
    there = [
        (_place(across, point.runs[0]), point.runs, found)
        for point in points
        if (found := measured(point.runs, entry.name)) is not None
    ]
    return Line(
        ", ".join(part for part in (entry.words, block) if part),
        [(x, found.mean) for x, _, found in there],
        spread=[found.std or 0.0 for *_, found in there],
        single=[(x, y) for x, of, m in there if m.repeats > 1 for y in values(of, entry.name)],
        paper=[(x, y) for x, of, _ in there for y in _reported(family, entry, of)],
    )


def _reported(family: Family, entry: Entry, runs: Iterable[Run]) -> set[float]:
    """What a paper reports of runs, if it says the same of all that it tells of."""
    found = {family.paper(entry.name, run.paper) for run in runs}
    known = {value for value in found if value is not None}
    return known if len(known) == 1 else set()


def _repeated(family: Family, together: Point) -> Chart:
    """Bars with their spread over seeds."""
    shown = family.entries[:LINES]
    lines = [_bar(family, entry, together.runs) for entry in shown]
    said = [
        f"{line.label} {line.points[0][1]:.3g} ± {line.spread[0]:.2g}"
        + "".join(f", paper {y:.3g}" for _, y in line.paper)
        for line in lines
    ]
    return drawn(
        family.title, lines, across="", says=f"{family.title}: {'; '.join(said)}",
        note=_note(family, lines, len(family.entries) - len(lines)), ticks=[together.label],
        size=_SIZE,
    )  # fmt: skip


def _bar(family: Family, entry: Entry, runs: Sequence[Run]) -> Line:
    found = measured(runs, entry.name)
    # A family has what some run measured.
    assert found is not None
    return Line(
        entry.words,
        [(0.0, found.mean)],
        spread=[found.std or 0.0],
        single=[(0.0, y) for y in values(runs, entry.name)],
        paper=[(0.0, y) for y in _reported(family, entry, runs)],
    )


def _scattered(family: Family, runs: Sequence[Run], axis: Axis) -> Chart:
    entry = family.entries[0]
    there = [
        (_place(axis, run), run.metrics[entry.name]) for run in runs if entry.name in run.metrics
    ]
    line = Line("", sorted(there))
    says = f"{family.title}, {entry.words}, by {axis.title}: {_spoken(line, axis)}"
    return drawn(
        f"{family.title}, by {axis.title}", [line], across=axis.title, says=says,
        note=f"Of {entry.words}. {family.meaning}", joined=False, size=_SIZE,
    )  # fmt: skip


def _note(family: Family, lines: Sequence[Line], left_out: int) -> str:
    more = f" {left_out} more in the table." if left_out else ""
    paper = _PAPER if any(line.paper for line in lines) else ""
    return family.meaning + more + paper + (_SINGLE if any(line.single for line in lines) else "")


def _place(axis: Axis, run: Run) -> float:
    value = axis.at(run)
    return float(value) if axis.numeric else float(axis.place(run))


def _spoken(line: Line, axis: Axis) -> str:
    return _told(line.points, axis) + (f", paper {_told(line.paper, axis)}" if line.paper else "")


def _told(points: Sequence[tuple[float, float]], axis: Axis) -> str:
    at = [worded(x) if axis.numeric else worded(axis.values[int(x)]) for x, _ in points]
    return ", ".join(f"{y:.3g} at {x}" for x, (_, y) in zip(at, points, strict=True))
