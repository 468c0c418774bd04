"""Explanations as they evolve, in every logger that takes pictures."""

from typing import Any

import lightning as L

from cwx.explanations.drawing import mosaic
from cwx.functional.images import Normalization


class LogPictures(L.Callback):
    """Sends a mosaic of the explanations, a row a class, at the end of each epoch.

    Args:
        stage: the name of the method.
        normalization: of the images.
    """

    def __init__(self, stage: str, normalization: Normalization) -> None:
        self._stage, self._normalization = stage, normalization

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        method: Any = pl_module
        takers = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
        if trainer.is_global_zero and takers:
            shown = method.explanations().shown(self._normalization)
            picture = mosaic(shown, self._normalization)
            for logger in takers:
                logger.log_image(
                    key=f"{self._stage}/images", images=[picture], step=trainer.global_step
                )
