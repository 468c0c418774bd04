"""Callbacks that write trajectories of experts, and predicted batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from torch import Tensor

from cwx.networks.eval_mode import accuracy
from cwx.storage.finite_weights import first_non_finite
from cwx.storage.shards import Shards
from cwx.storage.trajectories import Recorder


class RecordStates(L.Callback):
    """Records the initial weights, and the weights after each epoch that `recording` selects.

    The callback measures the test accuracy after every epoch itself, so that the recorded states do
    not depend on the validation of Lightning.

    Args:
        recorders: one per network of the module, in order.
    """

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self.recorders = list(recorders)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # A resume may begin within the first epoch.
        if trainer.global_step == 0:
            self._record(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._record(trainer, pl_module, trainer.current_epoch + 1)

    def _record(self, trainer: L.Trainer, module: Any, epoch: int) -> None:
        if not trainer.is_global_zero:
            return
        accuracies = {}
        epochs = module.recording.recorded_epochs(module.epochs)
        for recorder, network, stage in zip(
            self.recorders, module.networks, module.stages, strict=True
        ):
            if name := first_non_finite(network.state_dict()):
                # The last step may give such weights to a training whose losses are finite.
                raise ValueError(
                    f"the weights of {stage} are not finite after {epoch} epochs ({name}): "
                    f"{module.divergence_remedy()}"
                )
            batches = module.batches.test_batches(module.recording.images)
            value = accuracies[f"{stage}/accuracy"] = accuracy(network, batches)
            if epoch == 0:
                recorder.start()
            if epoch in epochs:
                recorder.record(epoch, module.recording.state(network), value)
        # After all states are written: if a kill left some experts complete, the training of the
        # others would start anew. Before Lightning writes the last checkpoint: a resume from it
        # calls no more callbacks.
        if epoch == module.epochs:
            for recorder in self.recorders:
                recorder.complete(epochs)
        for logger in trainer.loggers:
            logger.log_metrics(accuracies, step=trainer.global_step)


class WriteShards(L.Callback):
    """Writes each predicted batch immediately, under its number."""

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
