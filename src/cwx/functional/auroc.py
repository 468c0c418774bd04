"""Area under the ROC curve."""

import torch
from torch import Tensor


def auroc(scores: Tensor, positive: Tensor) -> float:
    """The probability that a positive has a higher score than a negative; ties count half.

    Args:
        scores: ``[n]``, of any range.
        positive: boolean mask ``[n]``.

    Raises:
        ValueError: there are no positives or no negatives, or a score is NaN.

    >>> import torch
    >>> auroc(torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([False, False, True, True]))
    0.875
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives or scores.isnan().any():
        raise ValueError(
            f"an AUROC needs positives, negatives and scores that are numbers, and there are "
            f"{positives} positives, {negatives} negatives and {int(scores.isnan().sum())} NaN"
        )
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean_ranks = last - (counts - 1) / 2
    total = float(mean_ranks[inverse][positive].sum())
    return (total - positives * (positives + 1) / 2) / (positives * negatives)


def auroc_given(scores: Tensor, positive: Tensor, other: Tensor, strata: int) -> float:
    """The AUROC among items of about the same value of another score; NaN without such pairs.

    The items are divided into `strata` parts of neighbouring ranks of the other score, and the
    AUROC of each part is weighted by its number of pairs of a positive and a negative.

    Args:
        scores, positive: see `auroc`.
        other: ``[n]``.
        strata: number of parts.
    """
    ranks = other.argsort(stable=True).argsort()
    part = ranks * strata // len(other)
    total = pairs = 0.0
    for number in range(strata):
        own = part == number
        weight = int(positive[own].sum()) * int((~positive[own]).sum())
        if weight:
            total += weight * auroc(scores[own], positive[own])
            pairs += weight
    return total / pairs if pairs else torch.nan
