"""A targeted attack on an ensemble of networks (Liu et al. 2017, §4; Dong et al., Eq 1).

Images are normalised floats ``[n, C, H, W]``. The pixels in the objective, the distance and the
step are on a scale from 0 (black) to `EnsembleAttack.scale` (white).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.functional.attacks import L2, require_gradients
from cwx.functional.images import Normalization

# From normalised images [n, C, H, W] to logits [n, classes].
Network = Callable[[Tensor], Tensor]

# Adam's defaults (Kingma & Ba 2015, Algorithm 1).
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class EnsembleAttack:
    """Perturbs each image towards its target class for several networks at once (§2.1, Eq 1).

        min  λ·‖x − x*‖₂ + Σ_i CE(f_i(x*), y*)        over pixels x* in [0, scale], from x* = x

    The optimiser is Adam; after each step pixels are clamped to the range. The norm is over all
    values of an image and not squared; its subgradient at x* = x is 0. An image does not depend on
    the others in the batch: Adam is element-wise, and the losses of the images are summed. A pixel
    of x outside the range may move towards it but not further away. With `epsilon`, each step also
    clamps pixels to [x − ε, x + ε].

    Args:
        weight: λ, in nats per unit of the scale.
        scale: the value of white on the scale of the distance and `step`: 255 for grey levels or 1.
        step: Adam's learning rate, on the scale.
        steps: number of steps.
        epsilon: ε, the largest change of a pixel on the scale (L∞); ``None`` for no bound (the
            paper).

    Raises:
        ValueError: a setting is out of range, or `epsilon` is less than one grey level of 255.
    """

    weight: float
    scale: float
    step: float
    steps: int
    epsilon: float | None

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(
                f"adversary.scale is {self.scale}: give the value of white, 255 for grey levels or "
                "1"
            )
        for name in ("weight", "step", "steps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"adversary.{name} is {getattr(self, name)}: give 0 or more, finite"
                )
        if self.step > self.scale:
            raise ValueError(
                f"adversary.step is {self.step:g} on a scale of 0 to {self.scale:g}, where pixels "
                f"are at most {self.scale:g} apart: lower it, or state the scale it is on "
                "(adversary.scale=255 for grey levels)"
            )
        if self.epsilon is not None:
            self._check_bound(self.epsilon)

    def _check_bound(self, epsilon: float) -> None:
        start = f"adversary.epsilon is {epsilon:g} on a scale of 0 to {self.scale:g}, "
        remedy = "state the scale it is on (adversary.scale=255 for grey levels, 1 for 0-1)"
        if not epsilon <= self.scale:
            raise ValueError(
                f"{start}where pixels are at most {self.scale:g} apart: lower it, give null for no "
                f"bound, or {remedy}"
            )
        if self._levels(epsilon) < 1:
            raise ValueError(
                f"{start}less than one grey level, so that images in bytes could not change: give "
                f"{self.scale / 255:.3g} or more, or {remedy}"
            )

    def _levels(self, epsilon: float) -> int:
        """The bound in whole grey levels of 255."""
        # 8/255 on a scale of 1 is 8 levels, whatever the rounding of the product.
        return math.floor(255 * epsilon / self.scale + 1e-6)

    @torch.no_grad()
    def __call__(
        self,
        networks: Sequence[Network],
        images: Tensor,
        targets: Tensor,
        *,
        normalization: Normalization,
    ) -> Tensor:
        """The adversarial images x*, normalised like `images` and detached.

        Network parameters get no gradients. The networks must be in eval mode, where images do not
        influence each other; their losses are summed in the given order.

        Args:
            networks: the members of the ensemble.
            images: x, normalised ``[n, C, H, W]``.
            targets: y* ``[n]``.
            normalization: of the images.

        Raises:
            ValueError: the members differ in the number of classes.
            RuntimeError: in inference mode, which has no gradients.
        """
        require_gradients()
        start = normalization.denormalize(images) * self.scale
        low, high = start.clamp(max=0), start.clamp(min=self.scale)
        if self.epsilon is not None:
            low, high = low.maximum(start - self.epsilon), high.minimum(start + self.epsilon)
        pixels, mean, square = start, torch.zeros_like(start), torch.zeros_like(start)
        for step in range(1, self.steps + 1):
            gradient = self._gradient(networks, pixels, targets, normalization)
            gradient += self.weight * L2().direction(pixels - start)
            mean.lerp_(gradient, 1 - _BETAS[0])
            square.lerp_(gradient.square(), 1 - _BETAS[1])
            mean_correction, square_correction = (1 - beta**step for beta in _BETAS)
            update = (mean / mean_correction) / ((square / square_correction).sqrt() + _EPSILON)
            pixels = (pixels - self.step * update).clamp(low, high)
        # Unperturbed pixels stay bit-identical.
        return torch.where(pixels == start, images, normalization.normalize(pixels / self.scale))

    def to_bytes(
        self, adversarial: Tensor, images: Tensor, *, normalization: Normalization
    ) -> Tensor:
        """The adversarial images rounded to bytes; no byte exceeds the bound.

        Args:
            adversarial: x*, normalised ``[n, C, H, W]``.
            images: x, normalised; from bytes.
            normalization: of both.
        """
        rounded = normalization.to_bytes(adversarial)
        if self.epsilon is None:
            return rounded
        # Rounding a bound between two grey levels could exceed it.
        start, levels = normalization.to_bytes(images).int(), self._levels(self.epsilon)
        return rounded.int().clamp(start - levels, start + levels).to(torch.uint8)

    def _gradient(
        self,
        networks: Sequence[Network],
        pixels: Tensor,
        targets: Tensor,
        normalization: Normalization,
    ) -> Tensor:
        """The gradient of the cross-entropies; memory: the graph of one network at a time."""
        gradient = torch.zeros_like(pixels)
        with torch.enable_grad():
            leaf = pixels.detach().requires_grad_()
            for logits in _same_shape(
                network(normalization.normalize(leaf / self.scale)) for network in networks
            ):
                loss = F.cross_entropy(logits, targets, reduction="sum")
                gradient += torch.autograd.grad(loss, leaf)[0]
        return gradient

    def distance(self, images: Tensor, others: Tensor, *, normalization: Normalization) -> Tensor:
        """‖x − x*‖₂ ``[n]`` of normalised `images` and `others`, on the scale."""
        difference = normalization.denormalize(images) - normalization.denormalize(others)
        norm: Tensor = torch.linalg.vector_norm(self.scale * difference, dim=(1, 2, 3))
        return norm


@torch.no_grad()
def average_probabilities(networks: Sequence[Network], images: Tensor) -> Tensor:
    """The mean of the class probabilities of the networks, ``[n, classes]``.

    Raises:
        ValueError: the networks differ in the number of classes.
    """
    logits = _same_shape(network(images) for network in networks)
    return torch.stack([member_logits.softmax(1) for member_logits in logits]).mean(0)


def _same_shape(logits: Iterable[Tensor]) -> Iterable[Tensor]:
    """Iterate over the logits of the members; refuse different shapes."""
    expected = None
    for number, member_logits in enumerate(logits, 1):
        shape = tuple(member_logits.shape)
        expected = expected or shape
        if shape != expected:
            raise ValueError(
                f"the first member of the ensemble gives logits of shape {expected}, and member "
                f"{number} of shape {shape} for the same images: choose adversary.members with "
                "the same classes"
            )
        yield member_logits
