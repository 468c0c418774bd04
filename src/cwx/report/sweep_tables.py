"""The numbers of a set of runs: averaged over repeated seeds, beside a paper's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from cwx.report.metric_groups import Family, families, union
from cwx.report.run import Run
from cwx.report.sweep_axes import Axis, Point, is_seed
from cwx.report.tables import Cell, Column, Table, number, short

# Main numbers in the table of runs, and of them those side by side.
MAIN, SIDES = 6, 2
SPREAD = "Mean ± sample standard deviation over runs that differ by seeds alone. "


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
    found = values(runs, name)
    if not found:
        return None
    return Measured(fmean(found), stdev(found) if len(found) > 1 else None, len(found))


def values(runs: Iterable[Run], name: str) -> list[float]:
    """The same, of each."""
    return [run.metrics[name] for run in runs if name in run.metrics]


def families_of(runs: Iterable[Run]) -> list[Family]:
    """What any of the runs measured that is known to mean something."""
    runs = list(runs)
    titles = {name: title for run in runs for name, title in run.titles.items()}
    return families(union(run.metrics for run in runs), titles)


def main_metrics(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The names to evaluation network runs by at a glance, with what they are: the first of each family, and
    what stands beside it; what most runs measured before what few did.
    """
    first = [
        (entry.name, f"{family.title}: {entry.words}")
        for family in families_of(runs)
        for entry in [e for e in family.entries if e.label == family.entries[0].label][:SIDES]
    ]
    return sorted(first, key=lambda main: -len(values(runs, main[0])))[:MAIN]


def repeats(points: Sequence[Point], axes: Sequence[Axis]) -> Point | None:
    """All runs as one point, if seeds alone tell them apart."""
    runs = [run for point in points for run in point.runs]
    if len(runs) < 2 or not axes or not all(is_seed(axis) for axis in axes):
        return None
    return Point("", f"mean of {len(runs)} runs", "", runs)


def tables_of(points: Sequence[Point], axes: Sequence[Axis]) -> list[Table]:
    """Main numbers, in words, and all of them: a row a number, a column a point."""
    runs = [run for point in points for run in point.runs]
    names = union(run.metrics for run in runs)
    if not names:
        return []
    known = [(e.name, f"{f.title}: {e.words}") for f in families_of(runs) for e in f.entries]
    if (together := repeats(points, axes)) is not None:
        points = [together, *points]
    paper = _paper(runs)
    spread = SPREAD if any(len(point.runs) > 1 for point in points) else ""
    note = spread + ("Small, or last: the paper’s figure." if paper else "")
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
    everywhere = all(run.paper for run in runs if run.metrics)
    return {
        name: min(values) if len(values) == 1 and everywhere else None
        for name, values in found.items()
    }
