"""Logging the images of explanations during optimisation."""

from typing import Any

import lightning as L

from cwx.explanations.drawing import mosaic
from cwx.functional.images import Normalization


class LogPictures(L.Callback):
    """Logs a mosaic of the explanations, one row per class, at the end of each epoch.

    Loggers without ``log_image`` are skipped.

    Args:
        stage: the name of the method.
        normalization: the normalisation of the images.
    """

    def __init__(self, stage: str, normalization: Normalization) -> None:
        self._stage, self._normalization = stage, normalization

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        method: Any = pl_module
        image_loggers = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
        if trainer.is_global_zero and image_loggers:
            images = method.explanations().for_display(self._normalization)
            picture = mosaic(images, self._normalization)
            for logger in image_loggers:
                logger.log_image(
                    key=f"{self._stage}/images", images=[picture], step=trainer.global_step
                )
