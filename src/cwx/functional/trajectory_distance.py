"""Distances of a reached state θ_M from a target θ_{k+N} (CWX, §3.1 and Eq 5).

The paper adds a squared error and a cosine, but does not say of which vectors. Both
interpretations take ``(start, reached, target)``, each the parameter vector ``[P]`` of a network,
and return a scalar ≥ 0.
"""

from collections.abc import Callable

from torch import Tensor

Distance = Callable[[Tensor, Tensor, Tensor], Tensor]


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖², summed over all parameters: the units of the paper's 0.35 and 0.76 (§3.2)."""
    return (a - b).square().sum()


def normalised_distance(start: Tensor, reached: Tensor, target: Tensor) -> Tensor:
    """‖θ_M − θ_{k+N}‖² / ‖θ_k − θ_{k+N}‖² + 1 − cos(θ_M − θ_k, θ_{k+N} − θ_k).

    Independent of the scale of θ, so that one outer learning rate fits all networks. Infinite or
    NaN if the target equals the start.
    """
    ratio = squared_distance(reached, target) / squared_distance(start, target)
    return ratio + 1 - _cosine(reached - start, target - start)


def literal_distance(
    start: Tensor,  # noqa: ARG001
    reached: Tensor,
    target: Tensor,
) -> Tensor:
    """‖θ_M − θ_{k+N}‖² + 1 − cos(θ_M, θ_{k+N}): the literal reading of the paper."""
    return squared_distance(reached, target) + 1 - _cosine(reached, target)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    # The minimum keeps the gradient finite if a vector is zero (before the first step).
    return (a @ b) / ((a @ a) * (b @ b)).clamp_min(1e-24).sqrt()
