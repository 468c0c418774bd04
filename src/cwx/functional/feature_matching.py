"""Optimisation of images towards target features (Ilyas et al. 2019, §3.1)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cwx.functional.attacks import L2, ascend
from cwx.functional.images import Normalization


def match_features(
    features: Callable[[Tensor], Tensor],
    starts: Tensor,
    targets: Tensor,
    *,
    normalization: Normalization,
    step: float,
    steps: int,
) -> Tensor:
    """Images whose features are close to the target features g.

        x' ← Π(x' − η ∇‖g(x') − g‖² / ‖∇‖₂)        from x' = a start, Π the clamp to [0, 1]

    The gradient of the squared distance has the direction of that of the distance, and is defined
    at distance 0 too.

    Args:
        features: g(·), from normalised images ``[n, C, H, W]`` to ``[n, d]``; images must not
            influence each other.
        starts: normalised initial images, ``[n, C, H, W]``.
        targets: g, ``[n, d]``.
        normalization: of the images.
        step: η, the L2 length of a step of one image, on the unit scale.
        steps: number of steps.

    Returns:
        Normalised images, detached.

    Raises:
        ValueError: `step` or `steps` is negative or not finite.
    """
    for name, value in (("step", step), ("steps", steps)):
        if not 0 <= value < math.inf:
            raise ValueError(f"feature matching takes a {name} of 0 or more, finite, not {value}")
    unit = normalization.denormalize(starts)
    delta = ascend(
        lambda delta: -(features(normalization.normalize(unit + delta)) - targets).square().sum(),
        torch.zeros_like(unit),
        direction=L2().direction,
        project=lambda delta: (unit + delta).clamp(0, 1) - unit,
        step=step,
        steps=steps,
    )
    return normalization.normalize(unit + delta)
