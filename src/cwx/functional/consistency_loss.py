"""What training asks of an image and its adversarial image together (Dong et al., Eq 8; D8)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def consistency(
    logits: Tensor,
    attacked_logits: Tensor,
    features: Tensor,
    attacked_features: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    beta: float,
) -> Tensor:
    """Each image's loss ``[n]``, in single precision or better:

        α CE(f(x), y) + (1 − α) CE(f(x*), y) + β ‖φ(x) − φ(x*)‖²

    with the squared norm a sum over features.

    Args:
        logits, attacked_logits: f of the images x and of the adversarial ones x*, ``[n, classes]``.
        features, attacked_features: φ of both, ``[n, …]``.
        labels: y, int64 ``[n]``.
    """
    clean, attacked = (
        F.cross_entropy(each, labels, reduction="none") for each in (logits, attacked_logits)
    )
    apart = (_single(features) - _single(attacked_features)).flatten(1).square().sum(1)
    return alpha * clean + (1 - alpha) * attacked + beta * apart


def _single(features: Tensor) -> Tensor:
    """A difference of half-precision features, and a sum of many squares, would lose all digits."""
    return features.to(torch.promote_types(features.dtype, torch.float32))
