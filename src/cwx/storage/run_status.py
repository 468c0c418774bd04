"""Reading the status and the metrics of a run, without torch.

status.json   running, finished, failed or interrupted, and the reason; start time and duration
metrics.json  flat name → number, once the run is finished
.lock         held by the process that writes the folder; released when it ends or dies
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwx.errors import did_you_mean
from cwx.storage.atomic import WriteError, remove_temporary, write_json, write_text
from cwx.storage.json_files import read_object
from cwx.storage.run_files import METRICS, RESERVE, STATUS, TRACEBACK

# In bytes: the status, its longest reason and a directory entry.
_RESERVE = 65_536

# In bytes; a status has some kilobytes.
_MAX_STATUS = 2**20
# A hundred years.
_MAX_SECONDS = 100 * 366 * 86400


def read_status(folder: Path) -> dict[str, Any]:
    """The status of the run in `folder`.

    Raises:
        ValueError: the folder has no readable status, so it is not that of a run.
    """
    try:
        return read_object(folder / STATUS, _MAX_STATUS)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"{folder} is not the folder of a run: it has no readable {STATUS} ({reason})"
        ) from error


def start_run(folder: Path, status: Mapping[str, Any]) -> None:
    """Write the status of a run that starts or continues in `folder`, whose lock is held.

    What an earlier start has left is removed: its traceback, and the temporary files of a process
    that was killed. Some space of the disk is set aside, so that `write_status` works on a full
    disk.
    """
    remove_temporary(folder)
    write_status(folder, status)
    write_text(folder / RESERVE, " " * _RESERVE)
    (folder / TRACEBACK).unlink(missing_ok=True)


def write_status(folder: Path, status: Mapping[str, Any]) -> None:
    """Write the status of the run in `folder`; on a full disk, in the space set aside.

    Raises:
        WriteError: it cannot be written at all.
    """
    try:
        write_json(folder / STATUS, status)
    except WriteError as error:
        (folder / RESERVE).unlink(missing_ok=True)
        try:
            write_json(folder / STATUS, status)
        except WriteError:
            _overwrite(folder / STATUS, status, error)


def _overwrite(file: Path, status: Mapping[str, Any], error: WriteError) -> None:
    """Replace the content of a file in place, which needs no free space, only that of the file."""
    room = file.stat().st_size if file.exists() else 0
    for reason in (status.get("reason"), None):
        text = json.dumps({**status, "reason": reason}).encode()
        if len(text) <= room:
            with file.open("r+b") as opened:
                # JSON may end in spaces: the file keeps its length until it is whole.
                opened.write(text.ljust(room))
                opened.flush()
                os.fsync(opened.fileno())
            return
    raise error


def read_metrics(folder: Path) -> dict[str, float | None]:
    """All metrics of the run in `folder`: ``None`` if not finite; empty if there are none."""
    try:
        metrics, _ = read_numbers(folder / METRICS)
    except (OSError, ValueError):
        return {}
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def read_numbers(file: Path) -> tuple[dict[str, float], list[str]]:
    """The metrics in a file, NaN for null, and the names whose values are no numbers.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the file is damaged.
    """
    content = read_object(file)
    numbers = {
        name: math.nan if value is None else value
        for name, value in content.items()
        if isinstance(value, int | float | None) and not isinstance(value, bool)
    }
    return numbers, [name for name in content if name not in numbers]


def run_seconds(status: Mapping[str, Any]) -> float | None:
    """The duration in a run's status; ``None`` if it states none, or no plausible one."""
    seconds = status.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return float(seconds) if 0 <= seconds <= _MAX_SECONDS else None


def objective(folder: Path, optimize: str | Sequence[str] | None) -> float | list[float] | None:
    """The objective values of the run in `folder`, for a sweeper that optimises.

    Args:
        optimize: the name of a metric, or several names; ``None`` if nothing is optimised.

    Raises:
        ValueError: a metric does not exist or is not finite: no sweeper can use it, and Optuna
            would fail with an error of its own.
    """
    if optimize is None:
        return None
    if isinstance(optimize, str):
        return _metric(read_metrics(folder), optimize, folder)
    metrics = read_metrics(folder)
    return [_metric(metrics, name, folder) for name in optimize]


def _metric(metrics: dict[str, float | None], name: str, folder: Path) -> float:
    if name not in metrics:
        remedy = did_you_mean(name, metrics, f"give one of {', '.join(metrics)}")
        raise ValueError(f"optimize is {name!r}, which {folder} did not measure: {remedy}")
    if (value := metrics[name]) is None:
        raise ValueError(
            f"optimize is {name!r}, which is not finite in {folder}: to continue the search "
            "without this job, set hydra.sweeper.max_failure_rate=1"
        )
    return float(value)
