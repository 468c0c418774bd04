"""My own method: images that the network classifies with the highest confidence."""

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.data.step_loaders import Steps
from cwx.explanations.images import Explanations
from cwx.training.subject import Subject


class Confident(L.LightningModule):
    def __init__(
        self,
        *,
        # Every method gets these three; method/confident.yaml has the others.
        subject: Subject,
        seed: int,
        stage: str,
        images_per_class: int,
        steps: int,
        learning_rate: float,
        decay: float,
    ) -> None:
        super().__init__()
        self.stage, self.learning_rate, self.decay = stage, learning_rate, decay
        self.network = subject.first_network("expert")
        # Images to optimise, initially noise, and their labels; a submodule with one parameter.
        self.images = subject.class_images(images_per_class, std=0.1, seed=seed)
        # Two epochs; each ends with a checkpoint and logged images.
        self.batches, self.epochs = Steps(steps // 2), 2

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.network(self.images.images), self.images.labels)
        self.log(f"{self.stage}/loss", loss, batch_size=len(self.images.labels))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.images.parameters(), lr=self.learning_rate, weight_decay=self.decay
        )

    def explanations(self) -> Explanations:
        return self.images.snapshot()
