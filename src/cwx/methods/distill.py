"""CWX: synthetic images that reproduce the training trajectory (CWX, Eq 1-5)."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.step_loaders import epoch_length
from cwx.data.trajectory_segments import SegmentBatch, Segments, read_segment
from cwx.explanations.images import Explanations
from cwx.functional.inner_learning_rate import matching_rate
from cwx.functional.inner_loop import Inner
from cwx.functional.loss_derivatives import Eager
from cwx.functional.moving_average import Average
from cwx.functional.network_loss import NetworkLoss
from cwx.functional.preconditioning import precondition
from cwx.functional.spacing import evenly_spaced
from cwx.functional.trajectory_distance import Distance, squared_distance
from cwx.functional.unroll import Descent, Unroll
from cwx.training.plan import Plan
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

# Start epochs from which the learning rate of training on S is derived.
RATE_STARTS = 5
# A larger change of this learning rate is reported.
LARGEST_RATE_CHANGE = 4.0


class Distill(L.LightningModule):
    """Optimises a few images per class so that M training steps on them lead from θ_k to θ_{k+N}.

    The images S start from Gaussian noise; their pixels are not clipped unless `project` is set.

    Args:
        subject: the data and the recorded experts.
        seed: of the initial S, the sampled segments and the random numbers of the inner loop.
        images_per_class: |S| divided by the number of classes.
        largest_set: the largest |S|: with many classes, S has fewer images per class, at least
            one; ``None`` for no limit.
        initial_std: standard deviation of the noise, in normalised pixels.
        iterations: outer steps.
        segments: segments per step, over all ranks.
        span: N, in epochs.
        start_min, start_max: the range of k, both ends included.
        inner: settings of the inner loop, which trains on S: M, η_θ and others. Without a learning
            rate, η_θ is derived from the experts and the initial S
            (`cwx.functional.inner_learning_rate`).
        learning_rate_lr: the outer learning rate of log η_θ; null keeps η_θ constant. The logarithm
            is learned so that η_θ stays positive.
        optimizer: builds the outer optimiser (η_S) from groups of parameters.
        schedule: builds the schedule of the outer learning rates from the optimiser, stepped after
            each outer step; ``None`` keeps them constant.
        spectral_exponent: strengthens low spatial frequencies of the gradient of S
            (`cwx.functional.preconditioning`); 0 leaves it as it is.
        average: decay of an exponential moving average of S over outer steps, which is the result;
            ``None`` for the last S.
        clip: largest update of S, as the root mean square over pixels in normalised units: a
            longer gradient is scaled down. It matters for networks without normalisation layers,
            whose loss has cliffs; for others it acts at most in the first steps.
        project: clamp S to the pixel range of real images after each outer step.
        distance: D.
        unroll: computes θ_M and its gradient; built from the loss.
        checkpoint_every: largest number of outer steps between two checkpoints.
    """

    def __init__(
        self,
        *,
        subject: Subject,
        seed: int,
        stage: str,
        images_per_class: Annotated[int, ">= 1"],
        largest_set: Annotated[int, ">= 1"] | None,
        initial_std: Annotated[float, ">= 0, <= 1000"],
        iterations: Annotated[int, ">= 1"],
        segments: Annotated[int, ">= 1"],
        span: Annotated[int, ">= 1"],
        start_min: Annotated[int, ">= 0"],
        start_max: Annotated[int, ">= 0"],
        inner: Inner,
        learning_rate_lr: Annotated[float, "> 0"] | None,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        schedule: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None,
        spectral_exponent: Annotated[float, ">= 0, <= 4"],
        average: Annotated[float, "> 0, < 1"] | None,
        clip: Annotated[float, "> 0"],
        project: bool,
        distance: Distance,
        unroll: Callable[[NetworkLoss], Unroll],
        checkpoint_every: Annotated[int, ">= 1"],
    ) -> None:
        super().__init__()
        if learning_rate_lr is not None and learning_rate_lr <= 0:
            raise ValueError(
                f"method.{stage}.learning_rate_lr is {learning_rate_lr}: give a rate above 0, or "
                "null to keep η fixed"
            )
        if clip <= 0:
            raise ValueError(f"method.{stage}.clip is {clip}: give a length above 0")
        self.subject, self.stage, self.seed, self.inner = subject, stage, seed, inner
        self.clip, self.project = clip, project
        self.optimizer, self.distance, self.learning_rate_lr = optimizer, distance, learning_rate_lr
        self.schedule, self.spectral_exponent = schedule, spectral_exponent
        loss = NetworkLoss(subject.network())
        self.unroll = unroll(loss)
        self.batches = Segments(
            trajectories=subject.fitted,
            vector=loss.vector,
            span=span,
            start_min=start_min,
            start_max=start_max,
            per_step=segments,
            epoch_steps=epoch_length(iterations, checkpoint_every),
            seed=seed,
        )
        self.epochs = iterations // self.batches.epoch_steps
        if largest_set is not None:
            fitting = max(largest_set // len(subject.data.classes), 1)
            if fitting < images_per_class:
                line = "%s: %d instead of %d images per class, as method.%s.largest_set is %d"
                log.info(line, stage, fitting, images_per_class, stage, largest_set)
            images_per_class = min(images_per_class, fitting)
        self.set = subject.class_images(images_per_class, std=initial_std, seed=seed)
        self.initial_rate = self._initial_rate(loss, span, range(start_min, start_max + 1))
        self.log_rate = nn.Parameter(
            torch.tensor(self.initial_rate).log(), learning_rate_lr is not None
        )
        self.averaged = None if average is None else Average(self.set.images, average)

    def _initial_rate(self, loss: NetworkLoss, span: int, starts: range) -> float:
        if self.inner.learning_rate is not None:
            return self.inner.learning_rate
        expert = self.subject.fitted[0]
        segments = [
            read_segment(expert, loss.vector, start=starts[index], span=span)
            for index in evenly_spaced(len(starts), RATE_STARTS).tolist()
        ]
        images, labels = self.set.images.detach(), self.set.labels
        rate = matching_rate(Eager(loss), segments, images, labels, steps=self.inner.steps)
        log.info("%s: learning rate of training on S starts at %.3g", self.stage, rate)
        return rate

    @classmethod
    def check(
        cls,
        plan: Plan,
        *,
        stage: str,
        span: int,
        start_min: int,
        start_max: int,
        images_per_class: int,
        **_: Any,
    ) -> None:
        """Refuse segments that experts will not have, and sizes beyond memory, before training.

        Raises:
            ValueError: a segment is too long or not recorded, the experts have a single state, or
                S exceeds the main memory.
        """
        numbers = len(plan.data.classes) * math.prod(plan.data.image_shape)
        plan.require_memory(f"method.{stage}.images_per_class", images_per_class, numbers)
        for setting, epochs in plan.epochs.items():
            if epochs == 0:
                raise ValueError(
                    f"method {stage} needs two recorded states of a trajectory, but a network of "
                    f"{setting} has a single state: continue its training on your images with "
                    "experts=continued, give experts.trajectories or experts.seeds instead, or "
                    "choose another method"
                )
        plan.require_segments(
            f"method.{stage}", plan.epochs, span=span, start_min=start_min, start_max=start_max
        )

    @property
    def rate(self) -> Tensor:
        """η_θ."""
        # exp(log η) would round a fixed η.
        fixed = torch.tensor(self.initial_rate, device=self.device)
        return fixed if self.learning_rate_lr is None else self.log_rate.exp()

    def training_step(self, batch: SegmentBatch, batch_idx: int) -> Tensor:
        losses, end_distance, span_length = self._measure(batch)
        # DDP averages over ranks, whose numbers of segments may differ or be zero.
        fraction = self.trainer.world_size / batch.total
        loss = losses.sum() * fraction
        # All ranks must stop together: a single rank would wait for gradients forever.
        finite = bool(torch.isfinite(loss.detach()))
        self.set.keep(
            finite=self.trainer.strategy.reduce_boolean_decision(finite, all=True),
            advice=f"{self.stage} diverged at step {self.global_step}: its loss is not finite. "
            f"Lower method.{self.stage}.optimizer.lr (the learning rate of S) or "
            f"method.{self.stage}.inner.learning_rate; the last finite S is kept",
        )
        # A rank without segments has no ratio of its own.
        distances = torch.stack([end_distance, span_length]) * fraction
        matched, reference = self.trainer.strategy.reduce(distances, reduce_op="mean").unbind()
        values = {"loss": loss.detach(), "matched": matched, "reference": reference}
        if self.learning_rate_lr is not None:
            values["rate"] = self.rate.detach()
        values["ratio"] = matched / reference.clamp_min(1e-30)
        for name, value in values.items():
            self.log(
                f"{self.stage}/{name}",
                value,
                prog_bar=name in ("loss", "ratio"),
                batch_size=batch.total,
                sync_dist=self.trainer.world_size > 1,
            )
        return loss

    def _measure(self, batch: SegmentBatch) -> tuple[Tensor, Tensor, Tensor]:
        """D of each segment, and the sums of ‖θ_{k+N} − θ_M‖² and ‖θ_k − θ_{k+N}‖²."""
        losses = [0 * (self.set.images.sum() + self.log_rate)]
        end_distance = span_length = torch.zeros((), device=self.device)
        for index, (start, target) in enumerate(batch.segments):
            # Numbered over all ranks, as in a single process.
            end = self.reach(start, self.global_rank + index * self.trainer.world_size)
            losses.append(self.distance(start, end, target))
            end_distance = end_distance + squared_distance(end, target).detach()
            span_length = span_length + squared_distance(start, target)
        return torch.stack(losses), end_distance, span_length

    def reach(self, start: Tensor, segment: int) -> Tensor:
        """θ_M, trained from θ_k on S, for segment number `segment` of this step."""
        return self.unroll(self._descent(segment), start, self.set.images, self.rate)

    def _descent(self, segment: int) -> Descent:
        return self.inner.descent(self.set.labels, (self.seed, self.global_step, segment))

    @torch.no_grad()
    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any
    ) -> None:
        gradient = self.set.images.grad
        if gradient is None:
            return
        gradient.copy_(precondition(gradient, self.spectral_exponent))
        step = optimizer.param_groups[0]["lr"] * gradient.square().mean().sqrt()
        gradient.mul_((self.clip / step.clamp_min(1e-30)).clamp_max(1))
        self.log(f"{self.stage}/step", step)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.project:
            # Before any callback: a checkpoint holds projected images.
            self.set.clamp(self.subject.data.normalization)

    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [{"params": [self.set.images]}]
        if self.learning_rate_lr is not None:
            groups.append({"params": [self.log_rate], "lr": self.learning_rate_lr})
        optimizer = self.optimizer(groups)
        if self.schedule is None:
            return optimizer
        scheduler = {"scheduler": self.schedule(optimizer), "interval": "step"}
        return [optimizer], [scheduler]

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        if self.averaged is not None:
            self.averaged.update(self.set.images)

    def on_fit_end(self) -> None:
        change = self.rate.item() / self.initial_rate
        if not 1 / LARGEST_RATE_CHANGE < change < LARGEST_RATE_CHANGE:
            log.warning(
                "%s: the learning rate of training on S moved from %.3g to %.3g: the fidelity "
                "may be low; set method.%s.inner.learning_rate nearer to its end, or lower "
                "method.%s.learning_rate_lr",
                self.stage, self.initial_rate, self.rate.item(), self.stage, self.stage,
            )  # fmt: skip

    def explanations(self) -> Explanations:
        """The current S or its average, with η_θ unless `inner` states it."""
        explanations = self.set.snapshot()
        if self.averaged is not None:
            explanations = replace(explanations, images=self.averaged.value())
        stated = self.learning_rate_lr is None and self.inner.learning_rate is not None
        learned = None if stated else self.rate.detach().cpu().clone()
        return replace(explanations, inner_learning_rate=learned)
