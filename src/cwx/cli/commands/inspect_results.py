"""The results of `cwx inspect`, read from the folders of its runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwx.storage.runs import find_runs

if TYPE_CHECKING:
    from cwx.report.run import RunContents
    from cwx.study.inspection import Inspection


def read_results(folder: Path, weights: Sequence[Path]) -> list["RunContents"]:
    """The contents of the runs, in the order of the files of weights."""
    # Torch takes seconds to import.
    from cwx.report.run import read_run

    folders = [folder]
    if len(weights) > 1:
        folders = sorted((run.folder for run in find_runs(folder)), key=lambda f: int(f.name))
    return [read_run(run) for run in folders]


def verdict(run: "RunContents") -> Mapping[str, str]:
    """The row of the table ``verdict`` of a run; empty if it has none."""
    table = run.tables().get("verdict")
    return dict(table.rows[0]) if table else {}


def describe_results(
    runs: Sequence["RunContents"],
    verdicts: Sequence[Mapping[str, str]],
    weights: Sequence[Path],
    inspections: Sequence["Inspection"],
) -> list[dict[str, Any]] | dict[str, Any]:
    """The result of each run, for programs; of a single run without a list."""
    from cwx.report.headline import headline

    lines = [
        {
            "weights": str(path),
            "folder": str(run.folder),
            "page": str(run.folder / "report.html"),
            "state": run.state,
            "result": headline(run),
            "verdict": row,
            "notes": list(inspection.notes),
            "ways": [dict(way) for way in inspection.ways],
            "metrics": dict(run.metrics),
        }
        for path, inspection, run, row in zip(weights, inspections, runs, verdicts, strict=True)
    ]
    return lines if len(weights) > 1 else lines[0]
