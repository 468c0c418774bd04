"""Images that a network sees as it sees others (Ilyas et al. 2019, §3.1)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cwx.functional.attacks import L2, ascend
from cwx.functional.images import Normalization


def match_features(
    features: Callable[[Tensor], Tensor],
    starts: Tensor,
    wanted: Tensor,
    *,
    normalization: Normalization,
    step: float,
    steps: int,
) -> Tensor:
    """Images whose features are close to those wanted.

        x' ← Π(x' − η ∇‖g(x') − g‖² / ‖∇‖₂)        from x' = a start, Π the clamp to [0, 1]

    The square has the gradient's direction of the norm, and one also where the distance is 0.

    Args:
        features: g, from normalised images ``[n, C, H, W]`` to ``[n, d]``, each image by itself.
        starts: normalised, ``[n, C, H, W]``.
        wanted: ``[n, d]``.
        normalization: of the images.
        step: η, how far an image moves in a step, in L2 on the unit scale.
        steps: their number.

    Returns:
        Normalised images, with no gradient through them.

    Raises:
        ValueError: `step` or `steps` is negative or not finite.
    """
    for name, value in (("step", step), ("steps", steps)):
        if not 0 <= value < math.inf:
            raise ValueError(f"matching features takes a {name} of 0 or more, not {value}")
    unit = normalization.denormalize(starts)
    delta = ascend(
        lambda delta: -(features(normalization.normalize(unit + delta)) - wanted).square().sum(),
        torch.zeros_like(unit),
        direction=L2().direction,
        project=lambda delta: (unit + delta).clamp(0, 1) - unit,
        step=step,
        steps=steps,
    )
    return normalization.normalize(unit + delta)
