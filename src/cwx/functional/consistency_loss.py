"""The consistency loss of an image and its adversarial image (Dong et al., Eq 8)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def consistency(
    logits: Tensor,
    attacked_logits: Tensor,
    features: Tensor | None,
    attacked_features: Tensor | None,
    labels: Tensor,
    *,
    alpha: float,
    beta: float,
) -> Tensor:
    """The loss of each image, ``[n]``; feature distances are in float32 or float64:

        α CE(f(x), y) + (1 − α) CE(f(x*), y) + β ‖φ(x) − φ(x*)‖²

    The squared norm is a sum over features.

    Args:
        logits, attacked_logits: f(x) of the images and f(x*) of the adversarial images,
            ``[n, classes]``.
        features, attacked_features: φ(x) and φ(x*), ``[n, …]``; both ``None`` if β is 0.
        labels: y, int64 ``[n]``.
        alpha: α, in 0-1.
        beta: β.
    """
    clean_loss, attacked_loss = (
        F.cross_entropy(batch, labels, reduction="none") for batch in (logits, attacked_logits)
    )
    losses = alpha * clean_loss + (1 - alpha) * attacked_loss
    if features is None or attacked_features is None:
        assert beta == 0
        return losses
    distance = (_single(features) - _single(attacked_features)).flatten(1).square().sum(1)
    return losses + beta * distance


def _single(features: Tensor) -> Tensor:
    """At least float32: in half precision, differences and sums of squares would be inexact."""
    return features.to(torch.promote_types(features.dtype, torch.float32))
