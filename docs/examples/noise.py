"""My own attack: uniform noise in the ball of the other attacks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.functional.attacks import Loss
from cwx.functional.images import Normalization


@dataclass(frozen=True, kw_only=True)
class Noise:
    epsilon: float
    scale: float
    # Targeted: the labels are the target classes. Random start: `draw` is called.
    targeted: bool = False
    random_start: bool = True

    def draw(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """The initial perturbations `[count, *shape]`, for pixels of 0-1."""
        noise = 2 * torch.rand((count, *shape), generator=generator) - 1
        return noise * self.epsilon / self.scale

    def __call__(
        self,
        loss: Loss,
        images: Tensor,
        labels: Tensor,
        *,
        normalization: Normalization,
        start: Tensor,
    ) -> Tensor:
        # Other attacks follow the gradient of loss(images, labels), one loss per image.
        noisy = normalization.denormalize(images) + start.to(images)
        return normalization.normalize(noisy.clamp(0, 1))
