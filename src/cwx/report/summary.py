"""The numbers of a set of runs: averaged over repeated seeds, beside a paper's, against what was
swept."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from cwx.report.axes import Axis, Point, worded
from cwx.report.charts import Chart, Line, drawn
from cwx.report.families import Entry, Family, families, union
from cwx.report.runs import Run
from cwx.report.tables import Cell, Column, Table, number, short

# Main numbers in the table of runs, lines on a chart, and settings with charts of their own.
MAIN, LINES, AXES = 6, 8, 3


@dataclass(frozen=True)
class Measured:
    """A number over repeats: their mean, and the sample standard deviation where there are more."""

    mean: float
    std: float | None
    repeats: int

    @property
    def text(self) -> str:
        return short(self.mean) + ("" if self.std is None else f" ± {self.std:.2g}")


def measured(runs: Iterable[Run], name: str) -> Measured | None:
    """A number of the runs that have it; nothing if none does."""
    values = [run.numbers[name] for run in runs if name in run.numbers]
    if not values:
        return None
    return Measured(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def main_numbers(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The names to judge runs by at a glance, with what they are: the first of each family."""
    found = families(union(run.numbers for run in runs), _titles(runs))
    return [(f.entries[0].name, f"{f.title}: {f.entries[0].label}") for f in found[:MAIN]]


def _titles(runs: Sequence[Run]) -> dict[str, str]:
    return {name: title for run in runs for name, title in run.titles.items()}


def tables_of(points: Sequence[Point]) -> list[Table]:
    """Main numbers, in words, and all of them: a row a number, a column a point."""
    runs = [run for point in points for run in point.runs]
    names = union(run.numbers for run in runs)
    if not names:
        return []
    known = [
        (e.name, f"{f.title}: {e.label}") for f in families(names, _titles(runs)) for e in f.entries
    ]
    paper = _paper(runs)
    repeated = any(len(point.runs) > 1 for point in points)
    spread = "Mean ± sample standard deviation over runs that differ by seeds alone. "
    note = (spread if repeated else "") + ("Grey: the paper’s figure." if paper else "")
    every = [(name, name) for name in dict.fromkeys([*names, *paper])]
    return [
        *([_table("Main numbers", known, points, paper, note, shown=True)] if known else []),
        _table("All numbers", every, points, paper, note, shown=not known),
    ]


def _table(
    title: str,
    named: Sequence[tuple[str, str]],
    points: Sequence[Point],
    paper: dict[str, float | None],
    note: str,
    *,
    shown: bool,
) -> Table:
    agreed = {name: value for name, value in paper.items() if value is not None}
    columns = [Column("number"), *(Column(point.words, True) for point in points)]
    if agreed:
        columns.append(Column("paper", True))
    rows = []
    for name, words in named:
        row = [Cell(words), *(_cell(point, name, differs=name not in agreed) for point in points)]
        rows.append([*row, number(agreed.get(name))] if agreed else row)
    return Table(title, columns, rows, note=note, open=shown)


def _cell(point: Point, name: str, *, differs: bool) -> Cell:
    found = measured(point.runs, name)
    papers = {run.paper[name] for run in point.runs if name in run.paper}
    beside = short(min(papers)) if differs and len(papers) == 1 else ""
    return Cell("", paper=beside) if found is None else Cell(found.text, found.mean, paper=beside)


def _paper(runs: Sequence[Run]) -> dict[str, float | None]:
    """What the paper reports by name; nothing where it says something else of some runs."""
    found: dict[str, set[float]] = {}
    for run in runs:
        for name, value in run.paper.items():
            found.setdefault(name, set()).add(value)
    everywhere = all(run.paper for run in runs if run.numbers)
    return {
        name: min(values) if len(values) == 1 and everywhere else None
        for name, values in found.items()
    }


def charts_of(points: Sequence[Point], across: Axis | None, axes: Sequence[Axis]) -> list[Chart]:
    """Each family of numbers along what was swept; a mark for each point, ± over repeats."""
    runs = [run for point in points for run in point.runs]
    found = families(union(run.numbers for run in runs), _titles(runs))
    if len(points) < 2:
        return []
    if across is not None:
        return [_chart(family, points, across) for family in found]
    numeric = [axis for axis in axes if axis.numeric and len(axis.values) > 2][:AXES]
    return [_scattered(family, runs, axis) for axis in numeric for family in found[:MAIN]]


def _chart(family: Family, points: Sequence[Point], across: Axis) -> Chart:
    blocks = list(dict.fromkeys(point.block for point in points))
    wanted = [(block, entry) for block in blocks for entry in family.entries]
    if len(wanted) > LINES:
        wanted = [(block, family.entries[0]) for block in blocks]
    lines = [
        _line([p for p in points if p.block == block], across, entry, block)
        for block, entry in wanted[:LINES]
    ]
    left_out = len(blocks) * len(family.entries) - len(wanted[:LINES])
    more = f" {left_out} more in the table." if left_out else ""
    ticks = [] if across.numeric else [worded(value) for value in across.values]
    spoken = "; ".join(f"{line.label} {_spoken(line, across)}" for line in lines)
    return drawn(
        family.title, lines, across=across.title, says=f"{family.title}: {spoken}",
        note=family.meaning + more, ticks=ticks, size=(4.2, 2.3),
    )  # fmt: skip


def _line(points: Sequence[Point], across: Axis, entry: Entry, block: str) -> Line:
    label = ", ".join(part for part in (entry.label, block) if part)
    there = [(p, m) for p in points if (m := measured(p.runs, entry.name)) is not None]
    places = [(_place(across, point.runs[0]), m.mean) for point, m in there]
    return Line(label, places, [m.std or 0.0 for _, m in there])


def _scattered(family: Family, runs: Sequence[Run], axis: Axis) -> Chart:
    entry = family.entries[0]
    there = [
        (_place(axis, run), run.numbers[entry.name]) for run in runs if entry.name in run.numbers
    ]
    line = Line("", sorted(there))
    says = f"{family.title}, {entry.label}, by {axis.title}: {_spoken(line, axis)}"
    return drawn(
        f"{family.title}, by {axis.title}", [line], across=axis.title, says=says,
        note=f"Of {entry.label}. {family.meaning}", joined=False, size=(4.2, 2.3),
    )  # fmt: skip


def _place(axis: Axis, run: Run) -> float:
    value = axis.at(run)
    return float(value) if axis.numeric else float(axis.place(run))


def _spoken(line: Line, axis: Axis) -> str:
    if not line.points:
        return "not measured"
    at = [worded(x) if axis.numeric else worded(axis.values[int(x)]) for x, _ in line.points]
    return ", ".join(f"{y:.3g} at {x}" for x, (_, y) in zip(at, line.points, strict=True))
