"""A method of my own: from grey to the images that the network is surest of."""

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
        # What a study gives to every method; the rest is in method/confident.yaml.
        subject: Subject,
        seed: int,
        stage: str,
        images_per_class: int,
        steps: int,
        rate: float,
        decay: float,
    ) -> None:
        super().__init__()
        self.stage, self.rate, self.decay = stage, rate, decay
        self.network = subject.explained("expert")
        # Noise of the data's shape and its labels, to be optimised; a parameter of this module.
        self.set = subject.class_images(images_per_class, std=0.1, seed=seed)
        # Two epochs, each with a checkpoint and a picture at its end.
        self.batches, self.epochs = Steps(steps // 2), 2

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.network(self.set.images), self.set.labels)
        self.log(f"{self.stage}/loss", loss, batch_size=len(self.set.labels))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([self.set.images], lr=self.rate, weight_decay=self.decay)

    def explanations(self) -> Explanations:
        return self.set.snapshot()
