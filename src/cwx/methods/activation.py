"""Activation maximisation, the baseline (CWX, §4 and Appendix A)."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import lightning as L
import torch
from torch import Tensor

from cwx.data.step_loaders import Steps, epoch_length
from cwx.explanations.images import Explanations
from cwx.functional.images import gaussian_blur
from cwx.networks.eval_mode import freeze
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class ActivationMaximisation(L.LightningModule):
    """Gradient ascent on the logit (before the softmax) of each image's class.

    The images start from Gaussian noise. Their gradients are independent, so that optimising all
    images in one batch gives the same result as one after another. Under DDP each rank optimises
    its part of the images.

    Args:
        subject: the data and the recorded experts; the first expert is explained, at the
            subject's epoch.
        initial_std: standard deviation of the noise, in normalised pixels.
        iterations: steps of gradient ascent.
        optimizer: builds the optimiser from the images; its learning rate is the step size.
        blur_sigma: standard deviation of the Gaussian blur in pixels; 0 for no blur.
        blur_every: steps between two blurs.
        blur_position: ``after`` each `blur_every`-th step, so that the final images may be blurred,
            or ``before`` the gradient of that step, as in the code that the paper cites.
        clamp: clip pixels to the image range after each step.
        checkpoint_every: largest number of steps between two checkpoints.
    """

    def __init__(
        self,
        *,
        subject: Subject,
        seed: int,
        stage: str,
        images_per_class: Annotated[int, ">= 1"],
        initial_std: Annotated[float, ">= 0, <= 1000"],
        iterations: Annotated[int, ">= 1"],
        optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer],
        blur_sigma: Annotated[float, ">= 0, <= 1000"],
        blur_every: Annotated[int, ">= 1"],
        blur_position: Literal["before", "after"],
        clamp: bool,
        checkpoint_every: Annotated[int, ">= 1"],
    ) -> None:
        super().__init__()
        if blur_every < 1:
            raise ValueError(f"method.{stage}.blur_every is {blur_every}: give 1 or more")
        self.subject, self.stage, self.optimizer = subject, stage, optimizer
        self.blur_sigma, self.blur_every, self.clamp = blur_sigma, blur_every, clamp
        self.blur_position = blur_position
        self.network = freeze(subject.trained_network(subject.trajectories[0]))
        self.batches = Steps(epoch_length(iterations, checkpoint_every))
        self.epochs = iterations // self.batches.count
        self.set = subject.class_images(images_per_class, std=initial_std, seed=seed)

    @classmethod
    def check(cls, plan: Plan, *, stage: str, images_per_class: int, **_: Any) -> None:
        """Refuse images that exceed the main memory, before training.

        Raises:
            ValueError: gives the required memory.
        """
        numbers = len(plan.data.classes) * math.prod(plan.data.image_shape)
        plan.require_memory(f"method.{stage}.images_per_class", images_per_class, numbers)

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        rows = slice(self.global_rank, None, self.trainer.world_size)
        logits = self.network(self.set.images[rows]).gather(1, self.set.labels[rows, None])
        finite = bool(torch.isfinite(logits.detach()).all())
        self.set.keep(
            finite=self.trainer.strategy.reduce_boolean_decision(finite, all=True),
            advice=f"{self.stage} diverged at step {self.global_step}: lower "
            f"method.{self.stage}.optimizer.lr, or set method.{self.stage}.clamp=true; the last "
            "finite images are kept",
        )
        self.log(
            f"{self.stage}/logit",
            logits.detach().mean(),
            prog_bar=True,
            batch_size=len(logits),
            sync_dist=self.trainer.world_size > 1,
        )
        # DDP averages the gradients of the ranks, which do not overlap.
        loss: Tensor = -logits.sum() * self.trainer.world_size
        return loss

    @torch.no_grad()
    def on_train_batch_start(self, *_: Any) -> None:
        if self.blur_position == "before" and (self.global_step + 1) % self.blur_every == 0:
            self.set.images.copy_(gaussian_blur(self.set.images, self.blur_sigma))

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        images: Tensor = self.set.images
        if self.blur_position == "after" and self.global_step % self.blur_every == 0:
            images = gaussian_blur(images, self.blur_sigma)
        if self.clamp:
            images = self.subject.data.normalization.clamp(images)
        self.set.images.copy_(images)

    def configure_optimizers(self) -> Any:
        return self.optimizer([self.set.images])

    def explanations(self) -> Explanations:
        """The current images."""
        return self.set.snapshot()
