"""What an image classifier has learned about each class, in pictures and numbers.

For notebooks and scripts:

- `cwx.open_run`, `cwx.open_sweep`: metrics, explanations and figures of what was run.
- `cwx.functional`: the papers' mathematics by topic, such as ``cwx.functional.unroll``.
- `cwx.TrajectoryRecorder`, `cwx.RecordTrajectory`: record the training of your own loop, in plain
  torch or in Lightning, to explain it.

Nothing is imported before it is used, so that the command line answers at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cwx import functional as functional
    from cwx.notebook import open_run as open_run
    from cwx.notebook import open_sweep as open_sweep
    from cwx.storage.trajectory_recorder import TrajectoryRecorder as TrajectoryRecorder
    from cwx.training.callbacks.record_trajectory import RecordTrajectory as RecordTrajectory

# The module of each name.
_MODULES = {
    "RecordTrajectory": "cwx.training.callbacks.record_trajectory",
    "TrajectoryRecorder": "cwx.storage.trajectory_recorder",
    "open_run": "cwx.notebook",
    "open_sweep": "cwx.notebook",
}

__all__ = ["RecordTrajectory", "TrajectoryRecorder", "functional", "open_run", "open_sweep"]


def __getattr__(name: str) -> Any:
    if name == "functional":
        return importlib.import_module("cwx.functional")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'cwx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
