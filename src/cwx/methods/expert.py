"""Training the networks to explain (CWX, §3.2, §6.2 and App. A; Dong et al., §3 and App. A)."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cwx.data.batches import Batch
from cwx.data.datamodule import ImageData
from cwx.functional.attacks import Attack
from cwx.functional.augmentation import Strategy
from cwx.functional.batch_statistics import GlobalBatchNorm
from cwx.functional.random_numbers import seeded
from cwx.networks.compiled import compile_networks
from cwx.storage.recording import Recording
from cwx.training.objectives import AUGMENTATION, CrossEntropy, ObjectiveFactory, Step
from cwx.training.ranks import Ranks

# Takes groups of parameters, as the optimisers of torch do.
Optimizer = Callable[[Iterable[dict[str, Any]]], torch.optim.Optimizer]
Schedule = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]

# Steps between two looks at the loss: reading it at every step would stall a GPU.
_CHECK_EVERY = 20
# The key of the running sums of an epoch in a checkpoint.
_EPOCH = "epoch_sums"


class Expert(L.LightningModule):
    """Trains one network, or several in parallel, by minimising an objective.

    Networks trained in parallel are independent: each receives the batches and the random numbers
    of its own seed, and its result is the same as if it were trained alone. They share only the
    overhead of a step, which for small networks is most of its cost.

    On several ranks the result is that of one but for rounding, unless the network draws random
    numbers itself, such as for dropout: these depend on the number of ranks.

    Args:
        networks: networks with their initial weights.
        data: the images.
        seeds: per network, the seed of its batches and augmentation.
        stages: per network, its name in logs.
        epochs: T.
        batch_size: images per step and network, over all ranks.
        augment: augmentation of a batch.
        attack: perturbs the augmented batch in the objective; ``None`` for standard training.
        optimizer: builds the optimiser from groups of parameters, one group per network; it must
            update each parameter independently of the others.
        schedule: builds the learning rate schedule of a network from the optimiser; stepped after
            each epoch. `ReduceLROnPlateau` receives the mean loss of the network over the epoch
            and all ranks. ``None`` for a constant learning rate.
        channels_last: compute in this memory format.
        compile: the mode of `torch.compile` for the networks, ``None`` for eager execution
            (`cwx.networks.compiled`). It changes a trained network by rounding alone, and is no
            part of its identity in the store.
        recording: which states are recorded.
        objective: builds the objective from a network, the data and the attack.

    Attributes:
        first_epoch: the epoch of the learning rate schedule at which this training starts.
        setting: the setting that holds this recipe, for messages.

    Raises:
        ValueError: `epochs` is below 1; while it trains, if the loss is not finite.
    """

    def __init__(
        self,
        *,
        networks: Sequence[nn.Module],
        data: ImageData,
        seeds: Sequence[int],
        stages: Sequence[str],
        epochs: Annotated[int, ">= 1"],
        batch_size: Annotated[int, ">= 1"],
        augment: Strategy,
        attack: Attack | None,
        optimizer: Optimizer,
        schedule: Schedule | None,
        channels_last: bool,
        recording: Recording,
        objective: ObjectiveFactory = CrossEntropy,
        compile: str | None = None,
    ) -> None:
        super().__init__()
        if epochs < 1:
            raise ValueError(f"recipe.epochs is {epochs}: give 1 or more")
        self.seeds, self.stages, self.epochs = tuple(seeds), tuple(stages), epochs
        self.augment, self.optimizer, self.schedule = augment, optimizer, schedule
        self.first_epoch, self.setting = 0, "recipe"
        self.objective = objective(network=networks[0], data=data, attack=attack)
        self.recording = recording
        self.compile_mode = compile
        self._compiled: list[nn.Module] | None = None
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.networks = nn.ModuleList(networks).to(memory_format=self.format)
        self.batches = data.batches(size=batch_size, seeds=self.seeds)

    @property
    def stage(self) -> str:
        """The common name of the networks in logs."""
        return (
            self.stages[0] if len(self.stages) == 1 else f"{self.stages[0]}+{len(self.stages) - 1}"
        )

    def on_train_epoch_start(self) -> None:
        self._loss_sums = torch.zeros(len(self.networks), device=self.device)
        self._image_count = 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # A collective operation: every rank has sums of its own, and rank 0 writes the file.
        sums = Ranks.running().collect(self._loss_sums.cpu)
        checkpoint[_EPOCH] = {"loss_sums": torch.stack(sums), "images": self._image_count}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # For an epoch that is continued: any other begins at zero.
        state = checkpoint.get(_EPOCH)
        if state is None:
            # Of an earlier version, which wrote checkpoints after epochs alone.
            return
        sums, ranks = state["loss_sums"], self.trainer.world_size
        if len(sums) != ranks:
            # Rank 0 continues the sums of another number of ranks.
            sums = torch.cat([sums.sum(0, keepdim=True), sums.new_zeros(ranks - 1, sums.shape[1])])
        # The module is not on its device yet.
        self._loss_sums = sums[self.global_rank].to(self.trainer.strategy.root_device)
        self._image_count = int(state["images"])

    def training_step(self, batches: list[Batch], batch_idx: int) -> Tensor:
        losses = torch.stack(
            [
                self._loss(network, batch, seed)
                for network, batch, seed in zip(
                    self._forms(batches[0]), batches, self.seeds, strict=True
                )
            ]
        )
        self._last_losses, total = losses.detach(), batches[0].total
        self._loss_sums = self._loss_sums + self._last_losses * total
        self._image_count += total
        for stage, loss in zip(self.stages, self._last_losses, strict=True):
            self.log(f"{stage}/loss", loss, batch_size=total)
        self.log("loss", self._last_losses.mean(), prog_bar=True, logger=False, batch_size=1)
        # Networks share no parameters: each receives the gradient of its own loss.
        return losses.sum()

    def _forms(self, batch: Batch) -> Iterable[nn.Module]:
        """The networks, or their compiled forms."""
        if self.compile_mode is None:
            return self.networks
        if self._compiled is None:
            images = batch.images.to(memory_format=self.format)
            networks = [*self.networks]
            self._compiled = compile_networks(networks, self.compile_mode, images, batch.labels)
        return self._compiled

    def _loss(self, network: nn.Module, batch: Batch, seed: int) -> Tensor:
        rank, ranks = self.global_rank, self.trainer.world_size
        step = Step(seed=seed, number=self.global_step, total=batch.total, rank=rank, ranks=ranks)
        batch_norm = GlobalBatchNorm() if ranks > 1 else nullcontext()
        with batch_norm, seeded(step.network_stream(), self.device):
            loss = self.objective(network, self._augmented(batch, step), step)
        # DDP averages over ranks, whose parts of a batch may differ in length or be empty.
        return loss * ranks / batch.total

    def _augmented(self, batch: Batch, step: Step) -> Batch:
        # Drawn for the whole batch, so that the number of ranks does not change the result.
        augmentation = self.augment.draw(batch.total, step.stream(AUGMENTATION))
        images = augmentation.part(step.rank, step.ranks)(batch.images)
        return batch._replace(images=images.to(memory_format=self.format))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        # At the end of an epoch too, before its states are recorded. NaN weights stay NaN.
        if self.global_step % _CHECK_EVERY and not self.trainer.is_last_batch:
            return
        for stage, loss in zip(self.stages, self._last_losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise ValueError(
                    f"the loss of {stage} is {loss} at step {self.global_step}, not finite: "
                    f"{self.divergence_remedy()}"
                )

    def divergence_remedy(self) -> str:
        """What the user can do if the training diverges, as the end of a message."""
        return f"lower {self.setting}.optimizer.lr"

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([{"params": [*n.parameters()]} for n in self.networks])
        self._schedules = []
        if self.schedule is not None:
            for index in range(len(self.networks)):
                with _single_group(optimizer, index):
                    self._schedules.append(self._advance(self.schedule(optimizer)))
        # Lightning would write the checkpoint before it passes the loss to `ReduceLROnPlateau`, and
        # the step would be lost on resume. `lr_scheduler_step` passes the loss instead.
        schedulers = [{"scheduler": s, "reduce_on_plateau": False} for s in self._schedules]
        return [optimizer], schedulers

    def _advance(
        self, schedule: torch.optim.lr_scheduler.LRScheduler
    ) -> torch.optim.lr_scheduler.LRScheduler:
        if isinstance(schedule, ReduceLROnPlateau):
            # It depends on the losses of the skipped epochs.
            return schedule
        with warnings.catch_warnings():
            # That the schedule steps before the optimiser.
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(self.first_epoch):
                schedule.step()
        return schedule

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        index = self._schedules.index(scheduler)
        with _single_group(scheduler.optimizer, index):
            if isinstance(scheduler, ReduceLROnPlateau):
                # A collective operation: every rank calls it for each network.
                scheduler.step(self._mean_losses()[index].item())
            else:
                scheduler.step()

    def _mean_losses(self) -> Tensor:
        """The mean loss of each network over the images of this epoch ``[networks]``."""
        # `reduce` works in place.
        sums: Tensor = self.trainer.strategy.reduce(self._loss_sums.clone(), reduce_op="mean")
        return sums / self._image_count


@contextmanager
def _single_group(optimizer: torch.optim.Optimizer, index: int) -> Iterator[None]:
    """Restrict an optimiser to the parameter group at `index`, for the schedule of one network."""
    groups = optimizer.param_groups
    optimizer.param_groups = [groups[index]]
    try:
        yield
    finally:
        optimizer.param_groups = groups
