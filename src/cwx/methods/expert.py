"""Training the networks that are to be explained (CWX, §3.2 and Appendix A; C2, C8)."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwx.data.module import Batch, ImageData

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Expert(L.LightningModule):
    """Ordinary training with cross-entropy.

    Args:
        network: with its initial weights.
        data: the images; the training order is a function of `seed`.
        epochs: T, one recorded state each.
        batch_size: images a step, over all ranks.
        optimizer: makes the optimiser from the parameters.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        data: ImageData,
        seed: int,
        stage: str,
        epochs: int,
        batch_size: int,
        optimizer: Optimizer,
    ) -> None:
        super().__init__()
        if epochs < 1:
            raise ValueError(f"procedure.epochs is {epochs}: give 1 or more")
        self.network, self.stage, self.epochs = network, stage, epochs
        self.batches = data.batches(size=batch_size, seed=seed)
        self.optimizer = optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.network(batch.images), batch.labels, reduction="sum")
        # DDP averages over ranks; slices of a batch may differ in length, even be empty.
        loss = loss * self.trainer.world_size / batch.total
        if not torch.isfinite(loss.detach()):
            raise ValueError(
                f"the loss of {self.stage} is no longer finite: lower procedure.optimizer.lr"
            )
        self.log(f"{self.stage}/loss", loss.detach(), prog_bar=True, batch_size=batch.total)
        return loss

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.network.parameters())
