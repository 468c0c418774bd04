"""Adversarial perturbations within a norm ball by projected gradient ascent.

The attacks differ in settings only. The fast gradient sign method (FGS; Goodfellow et al. 2015;
Dong et al., Eq 13) is one step of ε without a random start. Projected gradient descent (PGD; Madry
et al. 2018, §2.1) takes several smaller steps from a random start. The targeted iterative attack
(Kurakin et al. 2017; Dong et al., Eq 8-11) descends on the loss of a target label.

Images are normalised floats ``[n, C, H, W]``. Perturbations δ, radii and steps are on the unit
scale, where pixels lie in [0, 1].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.functional.images import Normalization

# From normalised images [n, C, H, W] and labels [n] to losses [n].
Loss = Callable[[Tensor, Tensor], Tensor]


class Ball(Protocol):
    """A norm ball about 0 for the perturbation δ of each image."""

    def largest(self, values: float) -> float:
        """The largest norm of the difference of two unit images with `values` values each."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Uniform samples of the ball of radius 1, in float32 on the CPU."""

    def direction(self, gradient: Tensor) -> Tensor:
        """For each image, the δ of norm ≤ 1 with the largest inner product with the gradient."""

    def project(self, perturbation: Tensor, radius: float | Tensor) -> Tensor:
        """The nearest δ in the ball; `radius` is a number or a tensor ``[n, 1, 1, 1]``."""


@dataclass(frozen=True)
class Linf:
    """The maximum norm: no absolute value of δ exceeds the radius."""

    def largest(self, values: float) -> float:
        return 1.0

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") - 1

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, perturbation: Tensor, radius: float | Tensor) -> Tensor:
        # clamp is typed for two numbers or two tensors; `radius` is either.
        return perturbation.clamp(-radius, radius)  # type: ignore[arg-type]


@dataclass(frozen=True)
class L2:
    """The Euclidean norm over all values of an image's δ is at most the radius."""

    def largest(self, values: float) -> float:
        return math.sqrt(values)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        normal = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        uniform = torch.rand(shape[0], generator=generator, dtype=torch.float32, device="cpu")
        # The fraction of the ball's volume within radius r is r ** (number of values).
        radii = uniform.pow(1 / math.prod(shape[1:]))
        return self.direction(normal) * radii.view(-1, 1, 1, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        tiny = torch.finfo(gradient.dtype).tiny
        # Confident networks have gradients whose squares underflow to 0 in single precision.
        peak = gradient.abs().amax((1, 2, 3), keepdim=True)
        scaled = gradient / peak.clamp(min=tiny)
        return scaled / _norm(scaled).clamp(min=tiny)

    def project(self, perturbation: Tensor, radius: float | Tensor) -> Tensor:
        tiny = torch.finfo(perturbation.dtype).tiny
        return perturbation * (radius / _norm(perturbation).clamp(min=tiny)).clamp(max=1)


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Increases a loss by a perturbation δ within a norm ball and within the pixel range.

        δ ← Π(δ + η d(∇_δ L(x + δ, y)))        L is negated if targeted

    d is the direction of steepest ascent for the ball's norm. Π projects to the ball, then to
    pixels in [0, 1]. A pixel of x outside that range may move towards it but not further away.

    Args:
        ball: the norm.
        epsilon: the ball's radius, on the scale.
        scale: the value of white on the scale of `epsilon` and `step`: 1, or 255 for grey levels.
        step: η, on the scale.
        steps: number of steps.
        random_start: start at a uniform sample of the ball instead of the image.
        targeted: the labels are the targets to reach, instead of the labels to leave.

    Raises:
        ValueError: a setting is out of range, or `epsilon` or `step` exceeds the largest distance
            of two images.
    """

    ball: Ball
    epsilon: Annotated[float, ">= 0"]
    scale: Annotated[float, "> 0, <= 65535"]
    step: Annotated[float, ">= 0"]
    steps: Annotated[int, ">= 1"]
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

    def check(self, shape: tuple[int, int, int]) -> None:
        """Refuse lengths above the largest distance of two images ``[C, H, W]`` of this shape.

        Raises:
            ValueError: names the setting.
        """
        self._check_lengths(math.prod(shape))

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
        """Initial δ ``[count, C, H, W]`` for images of `shape`, in float32 on the CPU.

        Draw for a whole batch and index the result like the batch, so that the draws do not depend
        on the number of ranks.
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
        """The perturbed images, normalised like `images` and detached.

        Network parameters get no gradients. The networks in `loss` must be in eval mode
        (`cwx.networks.eval_mode`), where images do not influence each other.

        Args:
            loss: the loss to increase, such as `cross_entropy` of a network.
            images: normalised, ``[n, C, H, W]``.
            labels: ``[n]``, the labels to leave or, if targeted, to reach.
            normalization: of the images.
            start: initial δ on the unit scale ``[n, C, H, W]``, rows of `draw`.

        Raises:
            ValueError: `start` and `images` differ in shape, or `epsilon` or `step` exceeds the
                largest distance of two images of this size.
            RuntimeError: in inference mode, which has no gradients.
        """
        self._check_call(images, start)
        radius, sign = self.epsilon / self.scale, -1 if self.targeted else 1
        unit = normalization.denormalize(images)
        # Augmented pixels may lie beyond [0, 1].
        low, high = unit.clamp(max=0), unit.clamp(min=1)

        def project(delta: Tensor) -> Tensor:
            # In this order: the clamp moves each value towards 0, so δ stays in the ball.
            return (unit + self.ball.project(delta, radius)).clamp(low, high) - unit

        delta = ascend(
            lambda delta: sign * loss(normalization.normalize(unit + delta), labels).sum(),
            # With device, dtype and memory format of the images.
            torch.empty_like(images).copy_(start),
            direction=self.ball.direction,
            project=project,
            step=self.step / self.scale,
            steps=self.steps,
        )
        # Unperturbed pixels stay bit-identical.
        return torch.where(delta == 0, images, normalization.normalize(unit + delta))

    def _check_call(self, images: Tensor, start: Tensor) -> None:
        require_gradients()
        if images.shape != start.shape:
            raise ValueError(
                f"images have shape {tuple(images.shape)}, but starts {tuple(start.shape)}: draw "
                "starts of that shape, or index them like the images"
            )
        self._check_lengths(images[0].numel() if len(images) else math.inf)


def no_attack() -> None:
    """The configuration's value for "no attack": returns ``None``."""


def require_gradients() -> None:
    """Refuse to run in inference mode.

    Raises:
        RuntimeError: in inference mode.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "attacks need gradients, which inference mode lacks: use torch.no_grad() instead, "
            "or trainer.inference_mode=false"
        )


def cross_entropy(*networks: Callable[[Tensor], Tensor]) -> Loss:
    """A loss: each image's cross-entropy, summed over the networks (Dong et al., Eq 1)."""

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        losses = [F.cross_entropy(net(images), labels, reduction="none") for net in networks]
        return torch.stack(losses).sum(0)

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
    """Projected gradient ascent on a scalar function of δ, starting from project(`start`)."""
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
