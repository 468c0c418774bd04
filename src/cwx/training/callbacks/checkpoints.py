"""Checkpoints that stay valid after a full disk or a killed process."""

import math
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cwx.storage.atomic import atomic


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a new file beside the checkpoint, then replaces the checkpoint atomically.

    Lightning's own writer uses the system's temporary folder: moving from there to another file
    system is a copy, which a full disk can truncate.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        with atomic(Path(path)) as file:
            torch.save(checkpoint, file)


def every_epoch(file: Path) -> ModelCheckpoint:
    """A callback that writes a checkpoint to `file` after each training epoch."""
    return ModelCheckpoint(
        dirpath=file.parent,
        filename=file.stem,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


class CheckpointWithinEpoch(L.Callback):
    """Writes a checkpoint after a training step once `seconds` have passed since the last one.

    The checkpoints after each epoch are those of `every_epoch`, to the same file; they count too.
    The module, its optimiser and its batches must be able to continue within an epoch
    (`cwx.data.resumable_loader`).

    Rank 0 measures the time. As all ranks take part in a checkpoint, it tells the others after how
    many steps it looks at the clock again, at the latest in the middle of the time left: about
    twenty messages for each checkpoint.

    Args:
        seconds: between two checkpoints, more than 0.
    """

    def __init__(self, file: Path, *, seconds: float) -> None:
        self._file, self._seconds = file, seconds
        # The steps since the last checkpoint, and the step of the next look at the clock.
        self._steps, self._next_look = 0, 1
        self._start = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart_clock()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # The checkpoint of the last epoch has just been written.
        self._restart_clock()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        self._steps += 1
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self._steps < self._next_look or is_last:
            return
        # Never 0, also with a coarse clock.
        passed = max(time.monotonic() - self._start, 1e-6)
        left, pace = self._seconds - passed, passed / self._steps
        steps: int = trainer.strategy.broadcast(math.ceil(left / 2 / pace))
        if steps > 0:
            self._next_look = self._steps + steps
            return
        trainer.save_checkpoint(self._file)
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._start = time.monotonic()
        self._steps, self._next_look = 0, 1


def resume_point(file: Path) -> Path | None:
    """The checkpoint to resume from, or ``None`` if `file` does not exist.

    Raises:
        ValueError: the file exists but cannot be read.
    """
    if not file.exists():
        return None
    try:
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # The unpickler of a damaged or hostile file may raise anything.
        raise ValueError(
            f"the checkpoint {file} is truncated, damaged or not plain data "
            f"({type(error).__name__}): delete it to restart that stage"
        ) from error
    return file


def fit(trainer: L.Trainer, module: Any, file: Path) -> None:
    """Fit `module` on its own batches, from the checkpoint at `file` if it exists."""
    trainer.fit(module, datamodule=module.batches, ckpt_path=resume_point(file), weights_only=True)
