"""The time that a stage takes, over all starts of a run."""

import time
from typing import Any

import lightning as L


class ElapsedTime(L.Callback):
    """The seconds since it was built, plus those of earlier starts, which the checkpoint keeps.

    Work after the last checkpoint of an interrupted start is not counted: it is done again.
    """

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._earlier = 0.0

    @property
    def seconds(self) -> float:
        return self._earlier + time.monotonic() - self._start

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._earlier = float(state_dict["seconds"])
