"""Recording experts' trajectories and what is made batch by batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from torch import Tensor

from cwx.networks.eval_mode import accuracy
from cwx.storage.shards import Shards
from cwx.storage.trajectories import Recorder


class RecordStates(L.Callback):
    """Records the initial weights and those after each epoch that the module's `recording` keeps.

    It measures the test accuracy after every epoch itself, so that no state depends on when, or
    whether, Lightning validates.

    Args:
        recorders: one for each of the module's networks, in order.
    """

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self.recorders = list(recorders)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 0:
            self._record(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._record(trainer, pl_module, trainer.current_epoch + 1)

    def _record(self, trainer: L.Trainer, module: Any, epoch: int) -> None:
        if not trainer.is_global_zero:
            return
        rates = {}
        kept = module.recording.kept(module.epochs)
        for recorder, network, stage in zip(
            self.recorders, module.networks, module.stages, strict=True
        ):
            batches = module.batches.test_batches(module.recording.images)
            rate = rates[f"{stage}/accuracy"] = accuracy(network, batches)
            if epoch == 0:
                recorder.start()
            if epoch in kept:
                recorder.record(epoch, module.recording.state(network), rate)
            # Before Lightning's checkpoint of the last epoch, from which no training would follow.
            if epoch == module.epochs:
                recorder.complete(kept)
        for logger in trainer.loggers:
            logger.log_metrics(rates, step=trainer.global_step)


class WriteShards(L.Callback):
    """Writes each batch at once under the number that it was predicted for."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Mapping[str, Tensor],
        batch: int,
        *_: Any,
        **__: Any,
    ) -> None:
        self.shards.write(batch, outputs)
