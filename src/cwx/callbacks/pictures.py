"""Explanations as they evolve, in every logger that takes pictures."""

import lightning as L

from cwx.figures import mosaic


class LogPictures(L.Callback):
    """Sends a mosaic of the explanations, a row a class, at the end of each epoch."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                picture = mosaic(pl_module.explanations(), pl_module.subject.data.normalization)
                logger.log_image(key=f"{pl_module.stage}/images", images=[picture])
