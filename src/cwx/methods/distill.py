"""CWX: images that imitate the training trajectory (CWX, Eq 1-5; C1-C4)."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from cwx.data.segments import Segment, SegmentBatch, Segments
from cwx.data.steps import epoch_length
from cwx.explanations import Explanations
from cwx.functional.distances import Distance, squared_distance
from cwx.functional.losses import inner_loss
from cwx.functional.unroll import Parameters, Unroll
from cwx.subject import Subject


class Distill(L.LightningModule):
    """Optimises a few images a class so that M steps on them lead from θ_k to θ_{k+N}.

    The images S start from N(0, 1) in normalised pixels and stay unbounded.

    Args:
        subject: the data and the recorded experts.
        seed: of the initial S and of the segments drawn.
        images_per_class: |S| over the number of classes.
        iterations: outer steps.
        segments: segments a step, over all ranks.
        inner_steps: M.
        span: N, in epochs.
        start_min, start_max: the range of k, both ends included.
        inner_rate: η_θ.
        optimizer: makes the outer optimiser (η_S) from S.
        distance: D.
        unroll: how θ_M and its gradient are computed.
        checkpoint_every: outer steps from one checkpoint to the next, at most.
    """

    def __init__(
        self,
        *,
        subject: Subject,
        seed: int,
        stage: str,
        images_per_class: int,
        iterations: int,
        segments: int,
        inner_steps: int,
        span: int,
        start_min: int,
        start_max: int,
        inner_rate: float,
        optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer],
        distance: Distance,
        unroll: Unroll,
        checkpoint_every: int,
    ) -> None:
        super().__init__()
        self.rate: Tensor
        if inner_rate <= 0:
            raise ValueError(f"{stage}: inner_rate is {inner_rate}: give a rate above 0")
        self.subject, self.stage = subject, stage
        self.optimizer, self.distance, self.unroll = optimizer, distance, unroll
        self.inner_steps = inner_steps
        # Shapes alone: every weight it computes with comes from a segment.
        self.network = subject.network().requires_grad_(False)
        self.names = tuple(name for name, _ in self.network.named_parameters())
        self.batches = Segments(
            trajectories=subject.trajectories,
            names=self.names,
            span=span,
            start_min=start_min,
            start_max=start_max,
            per_step=segments,
            epoch_steps=epoch_length(iterations, checkpoint_every),
            seed=seed,
        )
        self.epochs = iterations // self.batches.epoch_steps
        self.set = subject.class_images(images_per_class, seed)
        self.register_buffer("rate", torch.tensor(inner_rate))

    def training_step(self, batch: SegmentBatch, batch_idx: int) -> Tensor:
        losses, matched, reference = self._measure(batch.segments)
        # DDP averages over ranks, which may hold unequal numbers of segments, even none.
        share = self.trainer.world_size / batch.total
        loss = losses.sum() * share
        # All ranks stop together, so that none waits for a gradient that never comes.
        finite = bool(torch.isfinite(loss.detach()))
        self.set.keep(
            finite=self.trainer.strategy.reduce_boolean_decision(finite, all=True),
            advice=f"{self.stage} diverged at step {self.global_step}: its loss is not finite. "
            f"Lower method.{self.stage}.optimizer.lr (the rate of S) or "
            f"method.{self.stage}.inner_rate; the last finite S is kept",
        )
        values = {
            "loss": loss.detach(),
            "matched": matched * share,
            "reference": reference * share,
        }
        values["ratio"] = values["matched"] / values["reference"].clamp_min(1e-30)
        for name, value in values.items():
            self.log(
                f"{self.stage}/{name}",
                value,
                prog_bar=name in ("loss", "ratio"),
                batch_size=batch.total,
                sync_dist=self.trainer.world_size > 1,
            )
        return loss

    def _measure(self, segments: Sequence[Segment]) -> tuple[Tensor, Tensor, Tensor]:
        """D of each segment, and the sums of ‖θ_{k+N} − θ_M‖² and ‖θ_k − θ_{k+N}‖²."""
        losses = [0 * self.set.images.sum()]
        matched = reference = torch.zeros((), device=self.device)
        for segment in segments:
            start, target = (tuple(state[name] for name in self.names) for state in segment)
            reached = self.reach(start)
            losses.append(self.distance(start, reached, target))
            matched = matched + squared_distance(reached, target).detach()
            reference = reference + squared_distance(start, target)
        return torch.stack(losses), matched, reference

    def reach(self, start: Parameters) -> Parameters:
        """θ_M from θ_k."""
        loss = inner_loss(self.network, self.names, self.set.labels)
        return self.unroll(loss, start, self.set.images, self.rate, self.inner_steps)

    def configure_optimizers(self) -> Any:
        return self.optimizer([self.set.images])

    def explanations(self) -> Explanations:
        """S as it stands."""
        return self.set.snapshot()
