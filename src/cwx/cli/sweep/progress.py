"""What a sweep says in the terminal: times, what is left, and a table of its jobs."""

import math
from collections.abc import Mapping, Sequence

from cwx.storage.quantities import duration
from cwx.storage.run_status import read_metrics
from cwx.storage.sweeps import FINISHED, Job

Numbers = Mapping[str, float | None]
# What a distillation is judged by, of all the numbers of its fidelity.
_MAIN = ("fidelity/ratio",)
# What was set, and how far pixels go.
_NO_RESULTS = {"corruption", "range"}


def remaining(
    took: Sequence[float], *, running: Sequence[float], waiting: int, at_once: int
) -> float | None:
    """An estimate of the seconds until all jobs have ended; ``None`` before any has.

    Each is taken to need the mean of those that have ended.

    Args:
        took: seconds of each job that has ended.
        running: seconds for which each job that runs has run.
    """
    if not took:
        return None
    mean = sum(took) / len(took)
    ends = sorted(max(mean - seconds, 0.0) for seconds in running)
    ends += [0.0] * (at_once - len(ends))
    for _ in range(waiting):
        # The next job begins where one ends first.
        ends.append(ends.pop(ends.index(min(ends))) + mean)
    return max(ends)


def leading(metrics: Sequence[Numbers], *, wanted: Sequence[str], most: int = 4) -> list[str]:
    """The numbers of a job that a table has room for.

    Args:
        metrics: those of each job.
        wanted: names to be shown first.
    """
    names = list(dict.fromkeys(name for found in metrics for name in found))
    chosen = [name for name in dict.fromkeys([*wanted, *_MAIN]) if name in names]
    groups = {name.partition("/")[0] for name in chosen}
    for name in names:
        group = name.partition("/")[0]
        # The first of each evaluation.
        if group not in groups | _NO_RESULTS:
            groups.add(group)
            chosen.append(name)
    return chosen[: max(most, len(wanted))]


def table(jobs: Sequence[Job], *, wanted: Sequence[str]) -> str:
    """The jobs beside each other, in lines: what was swept, how they stand, their main numbers."""
    metrics = [read_metrics(job.folder) if job.state == FINISHED else {} for job in jobs]
    swept = list(dict.fromkeys(name for job in jobs for name in job.swept))
    names = leading(metrics, wanted=wanted)
    rows = [["job", *swept, "state", "time", *names]]
    for job, found in zip(jobs, metrics, strict=True):
        time = "" if job.seconds is None else duration(job.seconds)
        row = [str(job.number), *(job.swept.get(name, "") for name in swept), job.state, time]
        rows.append([*row, *(_number(found.get(name, "")) for name in names)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _number(value: float | str | None) -> str:
    if value is None:
        return "nan"
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if math.isfinite(value) else str(value)
