"""Training the networks that are to be explained (CWX, §3.2, §6.2 and Appendix A; C2, C8, C14;
Dong et al., §3 and Appendix A; D8, D12)."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cwx.data.datamodule import Batch, ImageData
from cwx.functional.attacks import Attack
from cwx.functional.augmentation import Strategy
from cwx.storage.recording import Recording
from cwx.training.objectives import AUGMENTATION, CrossEntropy, ObjectiveFactory, Step

# From groups of parameters, as torch's optimisers take them.
Optimizer = Callable[[Iterable[dict[str, Any]]], torch.optim.Optimizer]
Schedule = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


class Expert(L.LightningModule):
    """Training by an objective, of one network or of several side by side.

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
        attack: how the objective perturbs it then; none for ordinary training.
        optimizer: makes the optimiser from the parameters, a group a network; it must treat each
            parameter on its own.
        schedule: changes a network's rate after each epoch, made from the optimiser; one that
            waits for a plateau is told the network's mean loss over the epoch, of all ranks. None
            keeps the rate.
        channels_last: compute in that memory format.
        recording: which states are recorded.
        objective: makes what is minimised from a network, the data and the attack.
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
        objective: ObjectiveFactory = CrossEntropy,
    ) -> None:
        super().__init__()
        if epochs < 1:
            raise ValueError(f"recipe.epochs is {epochs}: give 1 or more")
        self.seeds, self.stages, self.epochs = tuple(seeds), tuple(stages), epochs
        self.augment, self.optimizer, self.schedule = augment, optimizer, schedule
        self.objective = objective(network=networks[0], data=data, attack=attack)
        self.recording = recording
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.networks = nn.ModuleList(networks).to(memory_format=self.format)
        self.batches = data.batches(size=batch_size, seeds=self.seeds)

    @property
    def stage(self) -> str:
        """The name of all of them together."""
        return (
            self.stages[0] if len(self.stages) == 1 else f"{self.stages[0]}+{len(self.stages) - 1}"
        )

    def on_train_epoch_start(self) -> None:
        self._sums, self._seen = torch.zeros(len(self.networks), device=self.device), 0

    def training_step(self, batches: list[Batch], batch_idx: int) -> Tensor:
        losses = torch.stack(
            [
                self._loss(network, batch, seed)
                for network, batch, seed in zip(self.networks, batches, self.seeds, strict=True)
            ]
        )
        self._last, total = losses.detach(), batches[0].total
        self._sums, self._seen = self._sums + self._last * total, self._seen + total
        for stage, loss in zip(self.stages, self._last, strict=True):
            self.log(f"{stage}/loss", loss, batch_size=total)
        self.log("loss", self._last.mean(), prog_bar=True, logger=False, batch_size=1)
        # Parameters are the networks' own: each gets the gradient of its own loss.
        return losses.sum()

    def _loss(self, network: nn.Module, batch: Batch, seed: int) -> Tensor:
        rank, ranks = self.global_rank, self.trainer.world_size
        step = Step(seed=seed, number=self.global_step, total=batch.total, rank=rank, ranks=ranks)
        loss = self.objective(network, self._augmented(batch, step), step)
        # DDP averages over ranks; slices of a batch may differ in length, even be empty.
        return loss * ranks / batch.total

    def _augmented(self, batch: Batch, step: Step) -> Batch:
        # For all ranks, of which this one takes its images' part.
        whole = self.augment.draw(batch.total, step.stream(AUGMENTATION))
        images = whole.part(step.rank, step.ranks)(batch.images)
        return batch._replace(images=images.to(memory_format=self.format))

    def on_train_epoch_end(self) -> None:
        # Once an epoch: asking at every step would make a GPU wait. No way leads back from NaN.
        for stage, loss in zip(self.stages, self._last.tolist(), strict=True):
            if not math.isfinite(loss):
                raise ValueError(
                    f"the loss of {stage} is no longer finite: lower recipe.optimizer.lr"
                )

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([{"params": [*n.parameters()]} for n in self.networks])
        self._schedules = []
        if self.schedule is not None:
            for place in range(len(self.networks)):
                with _group(optimizer, place):
                    self._schedules.append(self.schedule(optimizer))
        # Lightning would take a checkpoint before it tells the loss to a schedule that waits for
        # it, and would not tell it when training goes on from there: it is told here.
        told = [{"scheduler": each, "reduce_on_plateau": False} for each in self._schedules]
        return [optimizer], told

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        place = self._schedules.index(scheduler)
        with _group(scheduler.optimizer, place):
            if isinstance(scheduler, ReduceLROnPlateau):
                # Every rank comes here, for each network.
                scheduler.step(self._mean_losses()[place].item())
            else:
                scheduler.step()

    def _mean_losses(self) -> Tensor:
        """Of each network's images of this epoch."""
        # It is reduced in place.
        sums: Tensor = self.trainer.strategy.reduce(self._sums.clone(), reduce_op="mean")
        return sums / self._seen


@contextmanager
def _group(optimizer: torch.optim.Optimizer, place: int) -> Iterator[None]:
    """Let an optimiser have but one of its groups, the one whose schedule is at work."""
    groups = optimizer.param_groups
    optimizer.param_groups = [groups[place]]
    try:
        yield
    finally:
        optimizer.param_groups = groups
