"""One self-contained page for a sweep, or any set of runs: what was swept, and what came of it."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cwx.report.comparable_runs import comparable, experiment
from cwx.report.figures import Row, side_by_side
from cwx.report.image_grid import Wall, wall_of_runs
from cwx.report.render import address, render, when
from cwx.report.run import Run, find_runs
from cwx.report.run_page import PAGE, facts, write_page
from cwx.report.svg_charts import Chart
from cwx.report.sweep_axes import NO_AXES, Axis, points, swept, tells, worded
from cwx.report.sweep_charts import charts_of
from cwx.report.sweep_tables import main_metrics, tables_of
from cwx.report.tables import Cell, Column, Table, number
from cwx.storage.atomic import write_text
from cwx.storage.quantities import duration
from cwx.storage.run_files import STATUS

# More settings than this that differ are told in one column.
AXES = 5
# Where a run has a page of its own in the folder.
BESIDE_A_RUN = "sweep.html"


@dataclass(frozen=True)
class Section:
    """Runs of the same classes, which can stand side by side."""

    title: str
    across: Axis | None
    wall: Wall | None
    tables: Sequence[Table]
    charts: Sequence[Chart]
    figures: Sequence[Row]


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page of all runs in and below `folders`, and of each run that has none of now.

    Args:
        folders: of runs, sweeps, or any that hold some.
        out: the page; by default ``report.html`` in the folder, if it is one alone, else in the
            current one; ``sweep.html`` where a run has its own page.

    Returns:
        The page; of one run alone, its own, unless `out` asks for another.

    Raises:
        ValueError: a folder does not exist, or there is no run in them; or `out` is a folder.
    """
    runs = find_runs(folders)
    alone = len(runs) == 1 and len(folders) == 1 and runs[0].folder == folders[0]
    if alone and out is None and runs[0].state != "damaged":
        return write_page(runs[0].folder)
    page = out or _default(folders)
    if page.is_dir():
        raise ValueError(f"{page} is a folder: name the file to write, such as {page / PAGE}")
    for run in runs:
        _refresh(run)
    axes = swept(runs)
    text = render(
        "sweep.html.j2",
        title=_title(folders, runs),
        states=Counter(run.state for run in runs),
        runs=_table(runs, axes, page),
        unfinished=[_unfinished(run, page) for run in runs if run.state != "finished"],
        axes=[(axis.key, [worded(value) for value in axis.values]) for axis in axes[:AXES]],
        shared=_shared(runs, axes),
        sections=_sections(runs),
        facts=_facts(runs),
        faults=[(_name(run, page), fault) for run in runs for fault in run.faults],
    )
    write_text(page, text)
    return page


def _default(folders: Sequence[Path]) -> Path:
    folder = folders[0] if len(folders) == 1 else Path()
    return folder / (BESIDE_A_RUN if (folder / STATUS).exists() else PAGE)


def _refresh(run: Run) -> None:
    """Write the run's own page if it has none, or one older than what the run last said.

    A run that runs, or was cut off, has said more since.
    """
    page, status = run.folder / PAGE, run.folder / STATUS
    if run.state == "damaged":
        return
    still = run.state in ("finished", "failed", "interrupted")
    if not still or not page.exists() or page.stat().st_mtime < status.stat().st_mtime:
        run.tried("its own page", lambda: write_page(run.folder))


def _title(folders: Sequence[Path], runs: Sequence[Run]) -> str:
    experiments = list(dict.fromkeys(str(r.status.get("experiment") or "") for r in runs))
    named = [name for name in experiments if name]
    if len(named) in (1, 2):
        return " and ".join(named)
    return ", ".join(folder.resolve().name for folder in folders)


def _sections(runs: Sequence[Run]) -> list[Section]:
    groups = [group for group in comparable(runs) if any(_left(run) for run in group)]
    return [_section(group, fraction=1 / len(groups)) for group in groups]


def _section(runs: Sequence[Run], *, fraction: float) -> Section:
    axes = swept(runs)
    across, found = points([run for run in runs if tells(run)] or runs, axes)
    return Section(
        title=" and ".join(dict.fromkeys(experiment(run) for run in runs)),
        across=across,
        wall=wall_of_runs(found, fraction=fraction),
        tables=tables_of(found, axes),
        charts=charts_of(found, across, axes),
        figures=side_by_side(found, fraction=fraction),
    )


def _left(run: Run) -> bool:
    return bool(run.metrics) or any(run.folder.glob("*.safetensors"))


def _table(runs: Sequence[Run], axes: Sequence[Axis], page: Path) -> Table:
    main = main_metrics(runs)
    many = len(axes) > AXES
    shared = _shared(runs, axes)
    columns = [
        Column("run"), Column("state"),
        *([Column("experiment")] if many else (Column(a.title, a.numeric) for a in axes)),
        *(Column(words, True) for _, words in main),
        Column("time", True), Column("started"), *([Column("settings")] if many else []),
    ]  # fmt: skip
    rows = []
    for run in runs:
        seconds = run.status.get("seconds")
        took = float(seconds) if isinstance(seconds, int | float) else None
        rows.append([
            Cell(_name(run, page), href=_link(run, page)),
            Cell(run.state, state=run.state),
            *([Cell(experiment(run))] if many else (_value(axis, run) for axis in axes)),
            *(number(run.metrics.get(name), run.paper.get(name)) for name, _ in main),
            Cell(duration(took), sort=took),
            Cell(when(run.status.get("started"))),
            *([_own(run, shared)] if many else []),
        ])  # fmt: skip
    return Table("Runs", columns, rows)


def _own(run: Run, shared: Mapping[str, str]) -> Cell:
    """What was set for this run, and not for all."""
    own = (key for key in run.overrides if key not in shared and key != "experiment")
    return Cell(" ".join(f"{k}={run.overrides[k]}" for k in own if not k.startswith(NO_AXES)))


def _value(axis: Axis, run: Run) -> Cell:
    value = axis.at(run)
    known = axis.numeric and isinstance(value, int | float)
    return Cell(worded(value), sort=float(value) if known else None)


def _relative(run: Run, page: Path) -> str:
    return os.path.relpath(run.folder.resolve(), page.resolve().parent).replace(os.sep, "/")


def _name(run: Run, page: Path) -> str:
    relative = _relative(run, page)
    return run.folder.resolve().name if relative == "." else relative


def _link(run: Run, page: Path) -> str:
    own = run.folder / PAGE
    there = own.exists() and own.resolve() != page.resolve()
    return address(f"{_relative(run, page)}/{PAGE}") if there else ""


def _unfinished(run: Run, page: Path) -> tuple[str, str, str]:
    """A run's name, state, and why: its reason, or what it last said."""
    last = run.last_lines(1)
    reason = str(run.status.get("reason") or "")
    return _name(run, page), run.state, reason or (last[0] if last else "it has said nothing yet")


def _shared(runs: Sequence[Run], axes: Sequence[Axis]) -> dict[str, str]:
    """Overrides that all runs have in common."""
    differing = {axis.key for axis in axes}
    first = next((run.overrides for run in runs if run.overrides), {})
    return {
        key: value
        for key, value in first.items()
        if key not in differing
        and all(run.overrides.get(key) == value for run in runs if run.overrides)
    }


def _facts(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Where the numbers come from: what each run says, each answer once."""
    told: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, value in facts(run).items():
            if name != "started":
                told.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in told.items()}
