"""Of a run's directory, what can be known without torch: how the run stands, and who writes it.

status.json   running, finished, failed or interrupted, and why; since when, how long
metrics.json  flat name → number, once it is finished
.lock         held by the process that writes the directory, however it ends
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
        ValueError: the folder is not a run.
    """
    try:
        status = json.loads((folder / STATUS).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is not the folder of a run: it has no readable {STATUS}"
        ) from error
    return dict(status)


def read_metrics(folder: Path) -> dict[str, float | None]:
    """All numbers of the run in `folder`, ``None`` where one was not finite; empty without any."""
    try:
        return dict(json.loads((folder / METRICS).read_text()))
    except (OSError, ValueError):
        return {}


def objective(folder: Path, optimize: str | Sequence[str] | None) -> float | list[float] | None:
    """What a sweeper that optimises is told of the run in `folder`.

    Args:
        optimize: one of the run's numbers by name, or several; ``None`` if nothing is optimised.

    Raises:
        ValueError: the run has no number of a name, or one that is not finite: no sweeper can go
            by it, and Optuna's would end with an error of its own.
    """
    if optimize is None:
        return None
    if isinstance(optimize, str):
        return _number(read_metrics(folder), optimize, folder)
    metrics = read_metrics(folder)
    return [_number(metrics, name, folder) for name in optimize]


def _number(metrics: dict[str, float | None], name: str, folder: Path) -> float:
    if name not in metrics:
        remedy = did_you_mean(name, metrics, f"give one of {', '.join(metrics)}")
        raise ValueError(f"optimize is {name!r}, which {folder} did not measure: {remedy}")
    if (value := metrics[name]) is None:
        raise ValueError(
            f"optimize is {name!r}, which is not finite in {folder}: a search goes on without it "
            "with hydra.sweeper.max_failure_rate=1"
        )
    return float(value)
