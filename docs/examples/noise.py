"""An attack of my own: noise, uniform in the ball that other attacks search."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.functional.attacks import Loss
from cwx.functional.images import Normalization


@dataclass(frozen=True, kw_only=True)
class Noise:
    epsilon: float
    scale: float
    # Whether labels are to be reached, and whether starts are drawn.
    targeted: bool = False
    random_start: bool = True

    def draw(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """Where each perturbation begins, on pixels of 0-1."""
        drawn = 2 * torch.rand((count, *shape), generator=generator) - 1
        return drawn * self.epsilon / self.scale

    def __call__(
        self,
        loss: Loss,
        images: Tensor,
        labels: Tensor,
        *,
        normalization: Normalization,
        start: Tensor,
    ) -> Tensor:
        # Another attack would follow the gradient of loss(images, labels), a loss for each.
        noisy = normalization.denormalize(images) + start.to(images)
        return normalization.normalize(noisy.clamp(0, 1))
