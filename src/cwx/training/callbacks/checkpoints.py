"""Checkpoints that stay valid after a full disk or a killed process."""

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
