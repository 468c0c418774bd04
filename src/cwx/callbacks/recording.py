"""Recording an expert's trajectory."""

from typing import Any

import lightning as L

from cwx.networks.modes import accuracy
from cwx.trajectories import Recorder


class RecordStates(L.Callback):
    """Records the initial weights and the weights after each epoch, T + 1 states in all.

    It measures the test accuracy of each state itself, so that no state depends on when, or
    whether, Lightning validates.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 0:
            if trainer.is_global_zero:
                self.recorder.start()
            self._record(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._record(trainer, pl_module, trainer.current_epoch + 1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and trainer.current_epoch == trainer.max_epochs:
            self.recorder.complete(trainer.current_epoch + 1)

    def _record(self, trainer: L.Trainer, expert: Any, epoch: int) -> None:
        if not trainer.is_global_zero:
            return
        rate = accuracy(expert.network, expert.batches.test_dataloader())
        self.recorder.record(epoch, expert.network, rate)
        for logger in trainer.loggers:
            logger.log_metrics({f"{expert.stage}/accuracy": rate}, step=trainer.global_step)
