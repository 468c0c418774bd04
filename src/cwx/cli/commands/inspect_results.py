"""The results of `cwx inspect`, read from the folders of its runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwx.storage.runs import find_runs

if TYPE_CHECKING:
    from cwx.study.inspection import Inspection


def run_folders(folder: Path, weights: Sequence[Path]) -> list[Path]:
    """The folders of the runs, in the order of the files of weights."""
    if len(weights) == 1:
        return [folder]
    return sorted((run.folder for run in find_runs(folder)), key=lambda f: int(f.name))


def verdict(folder: Path) -> Mapping[str, str]:
    """The row of the table ``verdict`` of a run; empty if it has none."""
    from cwx.report.run import read_run

    table = read_run(folder).tables().get("verdict")
    return dict(table.rows[0]) if table else {}


def results(
    folders: Sequence[Path], weights: Sequence[Path], inspections: Sequence["Inspection"]
) -> list[dict[str, Any]] | dict[str, Any]:
    """The result of each run, for programs; of a single run without a list."""
    from cwx.report.headline import headline
    from cwx.report.run import read_run

    lines = []
    for path, inspection, run_folder in zip(weights, inspections, folders, strict=True):
        run = read_run(run_folder)
        lines.append(
            {
                "weights": str(path),
                "folder": str(run_folder),
                "page": str(run_folder / "report.html"),
                "state": run.state,
                "result": headline(run),
                "verdict": verdict(run_folder),
                "notes": list(inspection.notes),
                "ways": [dict(way) for way in inspection.ways],
                "metrics": dict(run.metrics),
            }
        )
    return lines if len(weights) > 1 else lines[0]
