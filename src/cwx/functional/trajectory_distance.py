"""Distances between a reached state θ_M and a target θ_{k+N} (CWX, §3.1 and Eq 5).

The paper sums a squared error and a cosine without saying between which vectors. Both
readings take ``(start, reached, target)``, all parameters of a network as one vector ``[P]``
each, and return a scalar ≥ 0.
"""

from collections.abc import Callable

from torch import Tensor

Distance = Callable[[Tensor, Tensor, Tensor], Tensor]


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖², summed over all parameters: the units of the paper's 0.35 and 0.76 (§3.2)."""
    return (a - b).square().sum()


def normalised_distance(start: Tensor, reached: Tensor, target: Tensor) -> Tensor:
    """‖θ_M − θ_{k+N}‖² / ‖θ_k − θ_{k+N}‖² + 1 − cos(θ_M − θ_k, θ_{k+N} − θ_k).

    Free of scale, so that one outer rate serves every network; infinite where the target is
    the start itself.
    """
    ratio = squared_distance(reached, target) / squared_distance(start, target)
    return ratio + 1 - _cosine(reached - start, target - start)


def literal_distance(
    start: Tensor,  # noqa: ARG001
    reached: Tensor,
    target: Tensor,
) -> Tensor:
    """‖θ_M − θ_{k+N}‖² + 1 − cos(θ_M, θ_{k+N}): the words of the paper taken literally."""
    return squared_distance(reached, target) + 1 - _cosine(reached, target)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    # The floor keeps the gradient finite where a vector is zero (no step taken yet).
    return (a @ b) / ((a @ a) * (b @ b)).clamp_min(1e-24).sqrt()
