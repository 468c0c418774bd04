"""AdversarialSet perturbations within a ball: one projected ascent, of which attacks are settings.

Fast gradient sign (FGS; Goodfellow et al. 2015; Dong et al., Eq 13) is one step of ε without a
random start, projected gradient descent (PGD; Madry et al. 2018, §2.1) several smaller ones with
it, and the targeted iterative attack (Kurakin et al. 2017; Dong et al., Eq 8-11) descends on the
loss of another label.

Images are normalised floats ``[n, C, H, W]``. Perturbations δ, their bounds and their steps are
on the unit scale, where pixels lie in [0, 1].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.functional.images import Normalization

# From normalised images [n, C, H, W] and labels [n] to losses [n].
Loss = Callable[[Tensor, Tensor], Tensor]


class Ball(Protocol):
    """A norm's ball about 0 for each image's δ: where it starts, how it moves, how it is held."""

    def largest(self, values: float) -> float:
        """The greatest norm of a difference of two unit images of so many values."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Uniform in the ball of radius 1, in float32 on the CPU."""

    def direction(self, gradient: Tensor) -> Tensor:
        """What of norm 1 or less has the largest inner product with each image's gradient."""

    def project(self, perturbation: Tensor, radius: float | Tensor) -> Tensor:
        """The nearest in the ball of `radius`, one for all or one for each ``[n, 1, 1, 1]``."""


@dataclass(frozen=True)
class Linf:
    """No value of δ is larger than the radius."""

    def largest(self, values: float) -> float:
        return 1.0

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") - 1

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, perturbation: Tensor, radius: float | Tensor) -> Tensor:
        # Its signatures are for two numbers or two tensors, of which this is either.
        return perturbation.clamp(-radius, radius)  # type: ignore[arg-type]


@dataclass(frozen=True)
class L2:
    """The Euclidean norm of an image's δ, all its values together, is at most the radius."""

    def largest(self, values: float) -> float:
        return math.sqrt(values)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        normal = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        uniform = torch.rand(shape[0], generator=generator, dtype=torch.float32, device="cpu")
        # The share of the ball's volume within a radius r is r to the number of values.
        radii = uniform.pow(1 / math.prod(shape[1:]))
        return self.direction(normal) * radii.view(-1, 1, 1, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        tiny = torch.finfo(gradient.dtype).tiny
        # Confident networks give gradients whose squares are 0 in single precision.
        peak = gradient.abs().amax((1, 2, 3), keepdim=True)
        scaled = gradient / peak.clamp(min=tiny)
        return scaled / _norm(scaled).clamp(min=tiny)

    def project(self, perturbation: Tensor, radius: float | Tensor) -> Tensor:
        tiny = torch.finfo(perturbation.dtype).tiny
        return perturbation * (radius / _norm(perturbation).clamp(min=tiny)).clamp(max=1)


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Perturbs images within a ball, and within the pixel range, so that a loss rises.

        δ ← Π(δ + η d(∇_δ L(x + δ, y)))        L is negated if targeted

    with d the steepest direction of the ball's norm and Π the projection to the ball, then to
    pixels in [0, 1]. A pixel of x beyond that range may come back but goes no further.

    Args:
        ball: the norm.
        epsilon: the ball's radius, on the scale.
        scale: what white is on the scale of `epsilon` and `step`: 1, or 255 for grey levels.
        step: η, on the scale.
        steps: their number.
        random_start: begin anywhere in the ball, instead of at the image.
        targeted: the labels given are those to reach, not those to leave.

    Raises:
        ValueError: a setting is out of range, or no two images are `epsilon` or `step` apart.
    """

    ball: Ball
    epsilon: float
    scale: float
    step: float
    steps: int
    random_start: bool
    targeted: bool

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(
                f"attack.scale is {self.scale}: give the value of white, 1 or 255 for grey levels"
            )
        for name in ("epsilon", "step", "steps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"attack.{name} is {getattr(self, name)}: give 0 or more, finite")
        self._check_lengths(math.inf)

    def _check_lengths(self, values: float) -> None:
        largest = self.ball.largest(values) * self.scale
        for name in ("epsilon", "step"):
            if (length := getattr(self, name)) > largest:
                raise ValueError(
                    f"attack.{name} is {length:g} on a scale of 0 to {self.scale:g}, where images "
                    f"are at most {largest:g} apart: lower it, or state the scale it is on "
                    "(attack.scale=255 for grey levels)"
                )

    def draw(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """Starts δ ``[count, C, H, W]`` for images of `shape`, in float32 on the CPU.

        Draw for a whole batch and index it like the batch: any number of ranks sees the same.
        """
        if not self.random_start:
            return torch.zeros((count, *shape), dtype=torch.float32, device="cpu")
        return self.ball.draw((count, *shape), generator) * (self.epsilon / self.scale)

    @torch.no_grad()
    def __call__(
        self,
        loss: Loss,
        images: Tensor,
        labels: Tensor,
        *,
        normalization: Normalization,
        start: Tensor,
    ) -> Tensor:
        """The perturbed images, normalised like `images`, with no gradient through them.

        Parameters get no gradients. What `loss` asks is to be in eval mode (`evaluating`), where
        images do not influence each other.

        Args:
            loss: what rises, such as `cross_entropy` of a network.
            images: normalised, ``[n, C, H, W]``.
            labels: ``[n]``, those to leave, or if targeted those to reach.
            normalization: of the images.
            start: where each δ begins, on the unit scale ``[n, C, H, W]``: rows of `draw`.

        Raises:
            ValueError: `start` is of another shape than `images`, or `epsilon` or `step` is more
                than images of this size can be apart.
            RuntimeError: in inference mode, which has no gradients.
        """
        self._check_call(images, start)
        radius, sign = self.epsilon / self.scale, -1 if self.targeted else 1
        unit = normalization.denormalize(images)
        # Augmented pixels may lie beyond [0, 1].
        low, high = unit.clamp(max=0), unit.clamp(min=1)

        def project(delta: Tensor) -> Tensor:
            # In this order: the clamp moves each value towards 0, so the ball still holds.
            return (unit + self.ball.project(delta, radius)).clamp(low, high) - unit

        delta = ascend(
            lambda delta: sign * loss(normalization.normalize(unit + delta), labels).sum(),
            # Takes device, type and memory format of the images.
            torch.empty_like(images).copy_(start),
            direction=self.ball.direction,
            project=project,
            step=self.step / self.scale,
            steps=self.steps,
        )
        # What has not moved stays as it is to the last bit.
        return torch.where(delta == 0, images, normalization.normalize(unit + delta))

    def _check_call(self, images: Tensor, start: Tensor) -> None:
        require_gradients()
        if images.shape != start.shape:
            raise ValueError(
                f"images {tuple(images.shape)}, but starts {tuple(start.shape)}: draw as many of "
                "that size, or index what was drawn like the images"
            )
        self._check_lengths(images[0].numel() if len(images) else math.inf)


def no_attack() -> None:
    """Images as they are: what a configuration says where an attack may be left out."""


def require_gradients() -> None:
    """Refuse to attack where nothing can be differentiated.

    Raises:
        RuntimeError: in inference mode.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "attacks need gradients, which inference mode lacks: use torch.no_grad() instead, "
            "or trainer.inference_mode=false"
        )


def cross_entropy(*networks: Callable[[Tensor], Tensor]) -> Loss:
    """The cross-entropy of each image, summed over the networks (Dong et al., Eq 1)."""

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        each = [F.cross_entropy(net(images), labels, reduction="none") for net in networks]
        return torch.stack(each).sum(0)

    return loss


def ascend(
    objective: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    direction: Callable[[Tensor], Tensor],
    project: Callable[[Tensor], Tensor],
    step: float,
    steps: int,
) -> Tensor:
    """Projected gradient ascent on a scalar function of δ, from the projection of `start`."""
    delta = project(start)
    for _ in range(steps):
        leaf = delta.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(objective(leaf), leaf)
        with torch.no_grad():
            delta = project(leaf + step * direction(gradient))
    return delta.detach()


def _norm(images: Tensor) -> Tensor:
    """The Euclidean norm of each image ``[n, 1, 1, 1]``."""
    norm: Tensor = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
    return norm
