"""Distances between a reached state θ_M and a target θ_{k+N} (CWX, §3.1 and Eq 5).

The paper sums a squared error and a cosine without saying between which vectors. Both
readings take ``(start, reached, target)``, sequences of parameter tensors of equal shapes,
and return a scalar ≥ 0.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Distance = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], Tensor]


def squared_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """‖a − b‖², summed over all parameters: the units of the paper's 0.35 and 0.76 (§3.2)."""
    return torch.stack([(x - y).square().sum() for x, y in zip(a, b, strict=True)]).sum()


def normalised_distance(
    start: Sequence[Tensor], reached: Sequence[Tensor], target: Sequence[Tensor]
) -> Tensor:
    """‖θ_M − θ_{k+N}‖² / ‖θ_k − θ_{k+N}‖² + 1 − cos(θ_M − θ_k, θ_{k+N} − θ_k).

    Free of scale, so that one outer rate serves every network; infinite where the target is
    the start itself.
    """
    ratio = squared_distance(reached, target) / squared_distance(start, target)
    return ratio + 1 - _cosine(_difference(reached, start), _difference(target, start))


def literal_distance(
    start: Sequence[Tensor],  # noqa: ARG001
    reached: Sequence[Tensor],
    target: Sequence[Tensor],
) -> Tensor:
    """‖θ_M − θ_{k+N}‖² + 1 − cos(θ_M, θ_{k+N}): the words of the paper taken literally."""
    return squared_distance(reached, target) + 1 - _cosine(reached, target)


def _difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
    return [x - y for x, y in zip(a, b, strict=True)]


def _cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    # The floor keeps the gradient finite where a vector is zero (no step taken yet).
    product = torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()
    squares = [torch.stack([x.square().sum() for x in vector]).sum() for vector in (a, b)]
    return product / (squares[0] * squares[1]).clamp_min(1e-24).sqrt()
