"""Log lines of progress with the estimated time left, for runs without a terminal."""

import logging
import time
from datetime import timedelta
from typing import Any

import lightning as L

from cwx.training.callbacks.data_wait import DataWait

log = logging.getLogger(__name__)


class ProgressLines(L.Callback):
    """Logs the completed steps, the loss and the time left, at most once per `seconds`.

    With `DataWait` among the callbacks, also the share of the time in which the training waits for
    data. For prediction, the completed batches of this rank.
    """

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        if self._is_due(trainer):
            self._log_training(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._log_training(trainer, pl_module)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(0)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *_: Any,
        **__: Any,
    ) -> None:
        done, total = batch_idx + 1, int(sum(trainer.num_predict_batches))
        if self._is_due(trainer) or (trainer.is_global_zero and done == total):
            self._log_line(pl_module, done, total, "batches")

    def _start(self, first: int) -> None:
        self.start_time = self.last_log = time.monotonic()
        self.first = first

    def _is_due(self, trainer: L.Trainer) -> bool:
        now = time.monotonic()
        due = bool(trainer.is_global_zero) and now - self.last_log >= self.seconds
        if due:
            self.last_log = now
        return due

    def _log_training(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        values = dict(trainer.progress_bar_metrics)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, DataWait) and callback.share is not None:
                values["data_wait"] = callback.share
        self._log_line(
            module,
            trainer.global_step,
            int(trainer.estimated_stepping_batches),
            "  ".join(f"{name.split('/')[-1]} {value:.3g}" for name, value in values.items()),
        )

    def _log_line(self, module: Any, done: int, total: int, values: str) -> None:
        elapsed = time.monotonic() - self.start_time
        left = elapsed * (total - done) / max(1, done - self.first)
        line = "%-12s %5d/%d  %s  %s elapsed, %s left"
        log.info(line, module.stage, done, total, values, _clock(elapsed), _clock(left))


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
