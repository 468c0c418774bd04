"""The page of a sweep, or of any set of runs: swept settings and results in one file."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cwx.report.comparable_runs import comparable_groups, experiment_name
from cwx.report.figures import FigureRow, figure_rows
from cwx.report.image_grid import ImageGrid, sweep_grid
from cwx.report.render import format_time, link, render
from cwx.report.run import RunContents, read_runs
from cwx.report.run_page import PAGE, provenance, write_page
from cwx.report.svg_charts import Chart
from cwx.report.sweep_axes import (
    NO_AXES,
    Axis,
    format_setting,
    has_settings,
    sweep_points,
    swept_axes,
)
from cwx.report.sweep_charts import metric_charts
from cwx.report.sweep_curves import level_curves
from cwx.report.sweep_tables import main_metrics, metric_tables
from cwx.report.tables import Cell, Column, Table, number_cell
from cwx.storage.atomic import write_text
from cwx.storage.quantities import duration
from cwx.storage.run_files import STATUS
from cwx.storage.run_status import run_seconds

# With more axes than this, the table of runs has them in one column.
MAX_AXES = 5
# What a page takes in: runs, and groups of comparable runs.
MAX_RUNS, MAX_SECTIONS = 500, 20
# The page's name in a folder that also holds a run's own page.
PAGE_BESIDE_RUN = "sweep.html"


@dataclass(frozen=True)
class Section:
    """Comparable runs: they have the same classes."""

    title: str
    main_axis: Axis | None
    grid: ImageGrid | None
    tables: Sequence[Table]
    charts: Sequence[Chart]
    curves: Sequence[Chart]
    figures: Sequence[FigureRow]


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page of all runs in and below `folders`, and the outdated pages of single runs.

    Args:
        folders: of runs, of sweeps, or folders that contain these.
        out: the page; by default ``report.html``, in the folder if there is one, else in the
            current directory; ``sweep.html`` if the folder is itself a run.

    Returns:
        The page. A single run has only its own page, unless `out` is given.

    Raises:
        ValueError: a folder does not exist, there is no run, or `out` is a folder.
    """
    runs = read_runs(folders)
    is_single_run = len(runs) == 1 and len(folders) == 1 and runs[0].folder == folders[0]
    if is_single_run and out is None:
        return write_page(runs[0].folder)
    page = out or _default_page(folders)
    if page.is_dir():
        raise ValueError(f"{page} is a folder: name the file to write, such as {page / PAGE}")
    left_out = [f"{len(runs) - MAX_RUNS:,} of {len(runs):,} runs"] if len(runs) > MAX_RUNS else []
    runs = runs[:MAX_RUNS]
    for run in runs:
        _update_run_page(run)
    axes = swept_axes(runs)
    sections = _sections(runs)
    text = render(
        "sweep.html.j2",
        title=_title(folders, runs),
        states=Counter(run.state for run in runs),
        runs=_runs_table(runs, axes, page),
        unfinished=[_unfinished(run, page) for run in runs if run.state != "finished"],
        axes=[
            (axis.key, [format_setting(value) for value in axis.values]) for axis in axes[:MAX_AXES]
        ],
        shared=_shared_overrides(runs, axes),
        sections=sections,
        left_out=left_out,
        facts=_common_provenance(runs),
        read_errors=[(_name(run, page), error) for run in runs for error in run.read_errors],
    )
    write_text(page, text)
    return page


def _default_page(folders: Sequence[Path]) -> Path:
    folder = folders[0] if len(folders) == 1 else Path()
    return folder / (PAGE_BESIDE_RUN if (folder / STATUS).exists() else PAGE)


def _update_run_page(run: RunContents) -> None:
    """Write the run's own page if it is missing or older than the run's status.

    The page of a run that has not ended is always written: its log may have grown.
    """
    page, status = run.folder / PAGE, run.folder / STATUS
    has_ended = run.state in ("finished", "failed", "interrupted")

    def update() -> None:
        if not has_ended or not page.exists() or page.stat().st_mtime < status.lstat().st_mtime:
            write_page(run.folder)

    run.attempt("the run's own page", update)


def _title(folders: Sequence[Path], runs: Sequence[RunContents]) -> str:
    experiments = list(dict.fromkeys(str(r.status.get("experiment") or "") for r in runs))
    known = [name for name in experiments if name]
    if len(known) in (1, 2):
        return " and ".join(known)
    return ", ".join(folder.resolve().name for folder in folders)


def _sections(runs: Sequence[RunContents]) -> list[Section]:
    groups = [group for group in comparable_groups(runs) if any(map(_has_results, group))]
    sections = [
        group[0].attempt("its section", partial(_section, group, fraction=1 / len(groups)))
        for group in groups[:MAX_SECTIONS]
    ]
    return [section for section in sections if section is not None]


def _section(runs: Sequence[RunContents], *, fraction: float) -> Section:
    axes = swept_axes(runs)
    main_axis, points = sweep_points([run for run in runs if has_settings(run)] or runs, axes)
    curves = level_curves(points, axes)
    return Section(
        title=" and ".join(dict.fromkeys(experiment_name(run) for run in runs)),
        main_axis=main_axis,
        grid=sweep_grid(points, fraction=fraction),
        tables=[*metric_tables(points, axes), *curves.tables],
        charts=metric_charts(points, main_axis, axes),
        curves=curves.charts,
        figures=figure_rows(points, fraction=fraction),
    )


def _has_results(run: RunContents) -> bool:
    return bool(run.metrics) or any(run.folder.glob("*.safetensors"))


def _runs_table(runs: Sequence[RunContents], axes: Sequence[Axis], page: Path) -> Table:
    main = main_metrics(runs)
    many_axes = len(axes) > MAX_AXES
    shared = _shared_overrides(runs, axes)
    columns = [
        Column("run"), Column("state"),
        *([Column("experiment")] if many_axes else (Column(a.title, a.numeric) for a in axes)),
        *(Column(title, True) for _, title in main),
        Column("duration", True), Column("started"), *([Column("settings")] if many_axes else []),
    ]  # fmt: skip
    rows = []
    for run in runs:
        seconds = run_seconds(run.status)
        axis_cells = [_axis_cell(axis, run) for axis in axes]
        rows.append([
            Cell(_name(run, page), href=_page_link(run, page)),
            Cell(run.state, state=run.state),
            *([Cell(experiment_name(run))] if many_axes else axis_cells),
            *(number_cell(run.metrics.get(name), run.paper.get(name)) for name, _ in main),
            Cell(duration(seconds), sort=seconds),
            Cell(format_time(run.status.get("started"))),
            *([_own_overrides(run, shared)] if many_axes else []),
        ])  # fmt: skip
    return Table("Runs", columns, rows)


def _own_overrides(run: RunContents, shared: Mapping[str, str]) -> Cell:
    """The overrides of this run that not all runs have."""
    keys = (key for key in run.overrides if key not in shared and key != "experiment")
    return Cell(" ".join(f"{k}={run.overrides[k]}" for k in keys if not k.startswith(NO_AXES)))


def _axis_cell(axis: Axis, run: RunContents) -> Cell:
    value = axis.value_of(run)
    is_number = axis.numeric and isinstance(value, int | float)
    return Cell(format_setting(value), sort=float(value) if is_number else None)


def _relative_path(run: RunContents, page: Path) -> str:
    return os.path.relpath(run.folder.resolve(), page.resolve().parent).replace(os.sep, "/")


def _name(run: RunContents, page: Path) -> str:
    path = _relative_path(run, page)
    return run.folder.resolve().name if path == "." else path


def _page_link(run: RunContents, page: Path) -> str:
    run_page = run.folder / PAGE
    exists = run_page.exists() and run_page.resolve() != page.resolve()
    return link(f"{_relative_path(run, page)}/{PAGE}") if exists else ""


def _unfinished(run: RunContents, page: Path) -> tuple[str, str, str]:
    """A run's name, its state, and the reason or the last line of its log."""
    last = run.last_log_lines(1)
    reason = str(run.status.get("reason") or "")
    return _name(run, page), run.state, reason or (last[0] if last else "no log yet")


def _shared_overrides(runs: Sequence[RunContents], axes: Sequence[Axis]) -> dict[str, str]:
    """The overrides that all runs have in common."""
    differing = {axis.key for axis in axes}
    first = next((run.overrides for run in runs if run.overrides), {})
    return {
        key: value
        for key, value in first.items()
        if key not in differing
        and all(run.overrides.get(key) == value for run in runs if run.overrides)
    }


def _common_provenance(runs: Sequence[RunContents]) -> dict[str, list[str]]:
    """The provenance of all runs, each different value once."""
    values: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, value in provenance(run).items():
            if name != "started":
                values.setdefault(name, {})[value] = None
    return {name: list(different) for name, different in values.items()}
