"""The attack on several networks at once (Liu et al. 2017, §4; Dong et al., §2.1, Eq 1; D1).

Images are normalised floats ``[n, C, H, W]``. Their pixels, the distance and the step are on a
scale from 0, black, to `EnsembleAttack.scale`, white.
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

# Adam's own (Kingma & Ba 2015, Algorithm 1).
_BETAS = (0.9, 0.999)
_TINY = 1e-8


@dataclass(frozen=True, kw_only=True)
class EnsembleAttack:
    """Moves images until several networks together take each for its target.

        min  λ·‖x − x*‖₂ + Σ_i CE(f_i(x*), y*)        over pixels x* in [0, scale], from x* = x

    by Adam, after each of whose steps pixels are cut to the range. The norm is of all values of an
    image together and not squared; where x* = x its subgradient is 0. Adam moves value by value and
    the images' losses are summed, so that no image depends on its neighbours in the batch. A pixel
    of x beyond the range may come back but goes no further.

    Args:
        weight: λ, in nats a unit of the scale.
        scale: what white is on the scale of the distance and of `step`: 255 for grey levels, or 1.
        step: of Adam, on the scale.
        steps: their number.

    Raises:
        ValueError: a setting is out of range.
    """

    weight: float
    scale: float
    step: float
    steps: int

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

    @torch.no_grad()
    def __call__(
        self,
        networks: Sequence[Network],
        images: Tensor,
        targets: Tensor,
        *,
        normalization: Normalization,
    ) -> Tensor:
        """The attacked images, normalised like `images`, with no gradient through them.

        Parameters get no gradients. The networks are to be in eval mode, where images do not
        influence each other; their losses are summed in this order.

        Args:
            networks: the members of the ensemble.
            images: x, normalised ``[n, C, H, W]``.
            targets: y* ``[n]``.
            normalization: of the images.

        Raises:
            ValueError: the members give logits of different numbers of classes.
            RuntimeError: in inference mode, which has no gradients.
        """
        require_gradients()
        start = normalization.denormalize(images) * self.scale
        low, high = start.clamp(max=0), start.clamp(min=self.scale)
        pixels, mean, square = start, torch.zeros_like(start), torch.zeros_like(start)
        for number in range(1, self.steps + 1):
            slope = self._slope(networks, pixels, targets, normalization)
            slope += self.weight * L2().direction(pixels - start)
            mean.lerp_(slope, 1 - _BETAS[0])
            square.lerp_(slope.square(), 1 - _BETAS[1])
            first, second = (1 - beta**number for beta in _BETAS)
            moves = (mean / first) / ((square / second).sqrt() + _TINY)
            pixels = (pixels - self.step * moves).clamp(low, high)
        # What has not moved stays as it is to the last bit.
        return torch.where(pixels == start, images, normalization.normalize(pixels / self.scale))

    def _slope(
        self,
        networks: Sequence[Network],
        pixels: Tensor,
        targets: Tensor,
        normalization: Normalization,
    ) -> Tensor:
        """The gradient of the cross-entropies; one network's graph is held at a time."""
        slope = torch.zeros_like(pixels)
        with torch.enable_grad():
            leaf = pixels.detach().requires_grad_()
            for logits in _answers(
                network(normalization.normalize(leaf / self.scale)) for network in networks
            ):
                losses = F.cross_entropy(logits, targets, reduction="sum")
                slope += torch.autograd.grad(losses, leaf)[0]
        return slope

    def distance(self, images: Tensor, others: Tensor, *, normalization: Normalization) -> Tensor:
        """‖x − x*‖₂ of normalised images and others ``[n]``, on the scale."""
        apart = normalization.denormalize(images) - normalization.denormalize(others)
        far: Tensor = torch.linalg.vector_norm(self.scale * apart, dim=(1, 2, 3))
        return far


@torch.no_grad()
def average_probabilities(networks: Sequence[Network], images: Tensor) -> Tensor:
    """What the members of an ensemble hold for likely, on the average, ``[n, classes]``.

    Raises:
        ValueError: they give logits of different numbers of classes.
    """
    each = [logits.softmax(1) for logits in _answers(network(images) for network in networks)]
    return torch.stack(each).mean(0)


def _answers(logits: Iterable[Tensor]) -> Iterable[Tensor]:
    """The logits as they come, while they are of one shape."""
    first = None
    for number, found in enumerate(logits):
        first = first or tuple(found.shape)
        if tuple(found.shape) != first:
            raise ValueError(
                f"the first member of the ensemble gives logits of shape {first}, and member "
                f"{number + 1} of shape {tuple(found.shape)} for the same images: choose "
                "adversary.members that know the same classes"
            )
        yield found
