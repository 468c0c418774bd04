"""The results of `cwx inspect`, read from the folders of its runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwx.storage.run_folders import is_run
from cwx.storage.sweeps import FAILED

if TYPE_CHECKING:
    from cwx.report.run import RunContents
    from cwx.study.inspection import Inspection

# The exit status of a sweep of which a job has failed.
FAILURE = 1


def read_results(folder: Path, weights: Sequence[Path]) -> list["RunContents | None"]:
    """The contents of the runs, in the order of the files of weights.

    A job of a sweep that ended before its run began has none.
    """
    # Torch takes seconds to import.
    from cwx.report.run import read_run

    if len(weights) == 1:
        return [read_run(folder)]
    folders = [folder / str(job) for job in range(len(weights))]
    return [read_run(path) if is_run(path) else None for path in folders]


def verdict(run: "RunContents | None") -> Mapping[str, str]:
    """The row of the table ``verdict`` of a run; empty if it has none."""
    table = run.tables().get("verdict") if run is not None else None
    return dict(table.rows[0]) if table else {}


def describe_results(
    runs: Sequence["RunContents | None"],
    verdicts: Sequence[Mapping[str, str]],
    weights: Sequence[Path],
    inspections: Sequence["Inspection"],
) -> list[dict[str, Any]] | dict[str, Any]:
    """The result of each run, for programs; of a single run without a list.

    Without a run, ``folder``, ``page`` and ``result`` are null, and ``state`` is ``failed``.
    """
    from cwx.report.headline import headline

    lines = [
        {
            "weights": str(path),
            "folder": str(run.folder) if run else None,
            "page": str(run.folder / "report.html") if run else None,
            "state": run.state if run else FAILED,
            "result": headline(run) if run else None,
            "verdict": row,
            "notes": list(inspection.notes),
            "ways": [dict(way) for way in inspection.ways],
            "metrics": dict(run.metrics) if run else {},
        }
        for path, inspection, run, row in zip(weights, inspections, runs, verdicts, strict=True)
    ]
    return lines if len(weights) > 1 else lines[0]
