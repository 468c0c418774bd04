"""The progress of a sweep in the terminal: the remaining time, and a table of its jobs."""

import math
from collections.abc import Mapping, Sequence

from cwx.storage.quantities import duration
from cwx.storage.run_status import read_metrics
from cwx.storage.sweeps import FINISHED, Job

Metrics = Mapping[str, float | None]
# The main metrics, of evaluations with several.
_MAIN = ("fidelity/ratio",)
# Metrics that describe settings or pixel ranges.
_NO_RESULTS = ("corruption/", "gallery/range/")


def remaining_seconds(
    durations: Sequence[float], *, running: Sequence[float], waiting: int, at_once: int
) -> float | None:
    """The estimated seconds until all jobs have ended; ``None`` before the first has ended.

    Every job is assumed to need the mean duration of the ended ones.

    Args:
        durations: seconds of each ended job.
        running: seconds since the start of each running job.
        waiting: the number of jobs that have not started.
        at_once: the number of jobs that run at a time.
    """
    if not durations:
        return None
    mean = sum(durations) / len(durations)
    ends = sorted(max(mean - seconds, 0.0) for seconds in running)
    ends += [0.0] * (at_once - len(ends))
    for _ in range(waiting):
        # The next job starts where a job ends first.
        ends.append(ends.pop(ends.index(min(ends))) + mean)
    return max(ends)


def main_metrics(metrics: Sequence[Metrics], *, wanted: Sequence[str], most: int = 4) -> list[str]:
    """The names of the metrics in the table: `wanted`, `_MAIN`, then the first of each evaluation.

    Args:
        metrics: the metrics of each job.
        wanted: names to show first.
        most: the largest number of names, unless `wanted` has more.
    """
    names = list(dict.fromkeys(name for values in metrics for name in values))
    selected = [name for name in dict.fromkeys([*wanted, *_MAIN]) if name in names]
    groups = {name.partition("/")[0] for name in selected}
    for name in names:
        group = name.partition("/")[0]
        if group not in groups and not name.startswith(_NO_RESULTS):
            groups.add(group)
            selected.append(name)
    return selected[: max(most, len(wanted))]


def table(jobs: Sequence[Job], *, wanted: Sequence[str]) -> str:
    """A line per job: its swept settings, state, time and main metrics."""
    metrics = [read_metrics(job.folder) if job.state == FINISHED else {} for job in jobs]
    swept = list(dict.fromkeys(name for job in jobs for name in job.swept))
    names = main_metrics(metrics, wanted=wanted)
    rows = [["job", *swept, "state", "time", *names]]
    for job, values in zip(jobs, metrics, strict=True):
        time = "" if job.seconds is None else duration(job.seconds)
        row = [str(job.number), *(job.swept.get(name, "") for name in swept), job.state, time]
        rows.append([*row, *(_format(values.get(name, "")) for name in names)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _format(value: float | str | None) -> str:
    if value is None:
        return "nan"
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if math.isfinite(value) else str(value)
