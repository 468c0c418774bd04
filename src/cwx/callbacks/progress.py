"""Progress with an estimate where there is no terminal for a bar: a line now and then."""

import logging
import time
from datetime import timedelta
from typing import Any

import lightning as L

log = logging.getLogger(__name__)


class ProgressLines(L.Callback):
    """Logs the steps done, the loss and the time left, at most every `seconds`."""

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = self.shown = time.monotonic()
        self.first = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        now = time.monotonic()
        if trainer.is_global_zero and now - self.shown >= self.seconds:
            self.shown = now
            log.info("%s", self._line(trainer, pl_module, now - self.began))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            log.info("%s", self._line(trainer, pl_module, time.monotonic() - self.began))

    def _line(self, trainer: L.Trainer, module: L.LightningModule, elapsed: float) -> str:
        done, total = trainer.global_step, int(trainer.estimated_stepping_batches)
        values = trainer.progress_bar_metrics
        shown = "  ".join(f"{name.split('/')[-1]} {value:.3g}" for name, value in values.items())
        left = elapsed * (total - done) / max(1, done - self.first)
        return (
            f"{module.stage:<12} {done:>5}/{total}  {shown}  "
            f"{_clock(elapsed)} elapsed, {_clock(left)} left"
        )


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
