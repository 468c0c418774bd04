"""Telling the other ranks of an error in a stage."""

import lightning as L

from cwx.training.rank_failures import announce


class AnnounceErrors(L.Callback):
    """Lets all ranks know of an error before Lightning ends the stage, which may wait for them."""

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        announce(exception)
