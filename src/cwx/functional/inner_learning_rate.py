"""A start for the learning rate of training on S."""

from collections.abc import Iterable
from statistics import mean

from torch import Tensor

from cwx.functional.loss_derivatives import Derivatives


def matching_rate(
    derivatives: Derivatives,
    segments: Iterable[tuple[Tensor, Tensor]],
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
) -> float:
    """The rate at which `steps` first steps on S move as far as the experts.

    η = mean over the segments of ‖θ_{k+N} − θ_k‖ / (M ‖∂L(θ_k, S)/∂θ‖).

    Args:
        derivatives: of the loss L.
        segments: pairs (θ_k, θ_{k+N}), each ``[P]``.
        images: the initial S ``[n, C, H, W]``.
        labels: of S, ``[n]``.
        steps: M.

    Raises:
        ValueError: the rate is not a finite number above 0.
    """
    rates: list[float] = [
        (target - start).norm().item()
        / (steps * max(derivatives.gradient(start, images, labels).norm().item(), 1e-30))
        for start, target in segments
    ]
    rate = mean(rates)
    if not 0 < rate < 1e6:
        raise ValueError(
            f"no learning rate of training on S fits these experts: the derived one is {rate:.3g}; "
            "set inner.learning_rate, such as 0.02"
        )
    return rate
