"""Reading the status and the metrics of a run, without torch.

status.json   running, finished, failed or interrupted, and the reason; start time and duration
metrics.json  flat name → number, once the run is finished
.lock         held by the process that writes the folder; released when it ends or dies
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cwx.errors import did_you_mean
from cwx.storage.run_files import METRICS, STATUS


def read_status(folder: Path) -> dict[str, Any]:
    """The status of the run in `folder`.

    Raises:
        ValueError: the folder has no readable status, so it is not that of a run.
    """
    try:
        status = json.loads((folder / STATUS).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is not the folder of a run: it has no readable {STATUS}"
        ) from error
    return dict(status)


def read_metrics(folder: Path) -> dict[str, float | None]:
    """All metrics of the run in `folder`: ``None`` if not finite; empty if there are none."""
    try:
        return dict(json.loads((folder / METRICS).read_text()))
    except (OSError, ValueError):
        return {}


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
