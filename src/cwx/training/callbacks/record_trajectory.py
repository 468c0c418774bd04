"""A callback that records the training of any LightningModule as a trajectory."""

import math
from pathlib import Path

import lightning as L
from torch import nn

from cwx.errors import UserError
from cwx.storage.trajectory_recorder import TrajectoryRecorder


class RecordTrajectory(L.Callback):
    """Records the initial weights and those after each epoch with `cwx.TrajectoryRecorder`.

    ``Trainer(callbacks=[cwx.RecordTrajectory("folder")])`` records the network of any
    LightningModule; the recording is complete when `fit` ends. A training that Lightning resumes
    continues it.

    Args:
        folder: of this recording alone; created if it is missing.
        network: the attribute of the LightningModule that holds the network, such as ``model``;
            ``""`` for the LightningModule itself. By default its only child with parameters.
        accuracy: the name of a logged metric, the test accuracy in 0-1, such as ``val_acc``;
            ``None`` records none.

    Raises:
        UserError: as `cwx.TrajectoryRecorder`; at the start of the training also if the network is
            not unique; after an epoch if `accuracy` was not logged.
    """

    def __init__(
        self, folder: str | Path, *, network: str | None = None, accuracy: str | None = None
    ) -> None:
        self.recorder = TrajectoryRecorder(folder)
        self.network, self.accuracy = network, accuracy

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        network, epoch = self._network(pl_module), trainer.current_epoch
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        # A checkpoint at the end of an epoch has all of its batches.
        if 0 < batches < trainer.num_training_batches:
            self.recorder.continue_within(epoch)
        else:
            self.recorder.record(network, epoch=epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        network, epoch = self._network(pl_module), trainer.current_epoch + 1
        self.recorder.record(network, epoch=epoch, accuracy=self._accuracy(trainer))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.recorder.close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self.recorder.interrupt()

    def _accuracy(self, trainer: L.Trainer) -> float:
        if self.accuracy is None:
            return math.nan
        metrics = trainer.callback_metrics
        if self.accuracy not in metrics:
            raise UserError(
                f"no metric {self.accuracy!r} was logged in this epoch, only "
                f"{', '.join(metrics) or 'none'}: give cwx.RecordTrajectory one of these as "
                "accuracy, or None"
            )
        return float(metrics[self.accuracy])

    def _network(self, module: L.LightningModule) -> nn.Module:
        if self.network is not None:
            try:
                return module.get_submodule(self.network)
            except AttributeError:
                raise UserError(
                    f"{type(module).__name__} has no child {self.network!r}: give "
                    "cwx.RecordTrajectory the attribute that holds the network"
                ) from None
        children = {
            name: child
            for name, child in module.named_children()
            if any(True for _ in child.parameters())
        }
        if len(children) != 1 or any(True for _ in module.parameters(recurse=False)):
            names = ", ".join(children) or "none"
            raise UserError(
                f"{type(module).__name__} has no single child with parameters ({names}): name the "
                'one to record, cwx.RecordTrajectory(folder, network="<name>"), or network="" for '
                f"{type(module).__name__} itself"
            )
        return next(iter(children.values()))
