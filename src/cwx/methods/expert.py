"""Training the networks that are to be explained (CWX, §3.2, §6.2 and Appendix A; C2, C8, C14)."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwx.data.module import Batch, ImageData
from cwx.functional.augment import Strategy
from cwx.functional.perturb import Attack, cross_entropy
from cwx.functional.streams import stream
from cwx.networks.modes import evaluating
from cwx.trajectories import Recording

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Schedule = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


class Expert(L.LightningModule):
    """Training with cross-entropy, of one network or of several side by side.

    With an attack it is adversarial (Madry et al. 2018, Eq 2.1): each step's batch, once augmented,
    is perturbed against the network as it then is, and the loss is that of the perturbed images
    alone.

    Networks that train together share the steps and nothing else: each sees the batches of its
    own seed and moves as it would alone. That saves what a step costs besides computing, which
    for small networks is most of it.

    Args:
        networks: with their initial weights.
        data: the images.
        seeds: of each network's batches and augmentation.
        stages: each network's name in logs.
        epochs: T.
        batch_size: images a step and network, over all ranks.
        augment: what happens to a batch.
        attack: what then happens to it, in eval mode; none for ordinary training.
        optimizer: makes the optimiser from the parameters; it must treat each on its own.
        schedule: changes its rate after each epoch, made from the optimiser; none keeps the rate.
        channels_last: compute in that memory format.
        recording: which states are recorded.
    """

    def __init__(
        self,
        *,
        networks: Sequence[nn.Module],
        data: ImageData,
        seeds: Sequence[int],
        stages: Sequence[str],
        epochs: int,
        batch_size: int,
        augment: Strategy,
        attack: Attack | None,
        optimizer: Optimizer,
        schedule: Schedule | None,
        channels_last: bool,
        recording: Recording,
    ) -> None:
        super().__init__()
        if epochs < 1:
            raise ValueError(f"procedure.epochs is {epochs}: give 1 or more")
        if attack is not None and attack.targeted:
            raise ValueError(
                "procedure.attack is targeted, and would make the right label easier: "
                "set procedure.attack.targeted to false"
            )
        self.seeds, self.stages, self.epochs = tuple(seeds), tuple(stages), epochs
        self.augment, self.attack = augment, attack
        self.optimizer, self.schedule, self.recording = optimizer, schedule, recording
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.networks = nn.ModuleList(networks).to(memory_format=self.format)
        self.batches = data.batches(size=batch_size, seeds=self.seeds)

    @property
    def stage(self) -> str:
        """The name of all of them together."""
        return (
            self.stages[0] if len(self.stages) == 1 else f"{self.stages[0]}+{len(self.stages) - 1}"
        )

    def training_step(self, batches: list[Batch], batch_idx: int) -> Tensor:
        losses = torch.stack(
            [
                self._loss(network, self._attacked(network, self._augmented(batch, seed), seed))
                for network, batch, seed in zip(self.networks, batches, self.seeds, strict=True)
            ]
        )
        self._last = losses.detach()
        for stage, loss in zip(self.stages, self._last, strict=True):
            self.log(f"{stage}/loss", loss, batch_size=batches[0].total)
        self.log("loss", self._last.mean(), prog_bar=True, logger=False, batch_size=1)
        # Parameters are the networks' own: each gets the gradient of its own loss.
        return losses.sum()

    def _augmented(self, batch: Batch, seed: int) -> Batch:
        # For all ranks, of which this one takes its images' part.
        whole = self.augment.draw(batch.total, stream(seed, self.global_step, 1))
        images = whole.part(self.global_rank, self.trainer.world_size)(batch.images)
        return batch._replace(images=images.to(memory_format=self.format))

    def _attacked(self, network: nn.Module, batch: Batch, seed: int) -> Batch:
        if self.attack is None:
            return batch
        normalization, shape = self.batches.normalization, self.batches.image_shape
        whole = self.attack.draw(batch.total, shape, stream(seed, self.global_step, 2))
        # In training mode, the attack would move running statistics and meet other dropout.
        with evaluating(network):
            images = self.attack(
                cross_entropy(network),
                batch.images,
                batch.labels,
                normalization=normalization,
                start=whole[self.global_rank :: self.trainer.world_size],
            )
        return batch._replace(images=images)

    def _loss(self, network: nn.Module, batch: Batch) -> Tensor:
        loss = F.cross_entropy(network(batch.images), batch.labels, reduction="sum")
        # DDP averages over ranks; slices of a batch may differ in length, even be empty.
        return loss * self.trainer.world_size / batch.total

    def on_train_epoch_end(self) -> None:
        # Once an epoch: asking at every step would make a GPU wait. No way leads back from NaN.
        for stage, loss in zip(self.stages, self._last.tolist(), strict=True):
            if not math.isfinite(loss):
                raise ValueError(
                    f"the loss of {stage} is no longer finite: lower procedure.optimizer.lr"
                )

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.networks.parameters())
        return ([optimizer], [self.schedule(optimizer)]) if self.schedule else optimizer
