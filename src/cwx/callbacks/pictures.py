"""Explanations as they evolve, in every logger that takes pictures."""

from typing import Any

import lightning as L

from cwx.figures import mosaic


class LogPictures(L.Callback):
    """Sends a mosaic of the explanations, a row a class, at the end of each epoch."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        method: Any = pl_module
        takers = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
        if trainer.is_global_zero and takers:
            normalization = method.subject.data.normalization
            picture = mosaic(method.explanations().shown(normalization), normalization)
            for logger in takers:
                logger.log_image(
                    key=f"{method.stage}/images", images=[picture], step=trainer.global_step
                )
