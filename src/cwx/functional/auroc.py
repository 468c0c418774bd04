"""Area under the ROC curve, of scores in memory or in a stream."""

from collections.abc import Iterable
from typing import NamedTuple

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
    AUROC of each part is weighted by its number of pairs of a positive and a negative. Items of one
    value have their mean rank: they are the most alike, and are in one part.

    >>> scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    >>> positive = torch.tensor([False, False, True, True])
    >>> auroc_given(scores, positive, torch.ones(4), strata=2)
    1.0

    Args:
        scores, positive: see `auroc`.
        other: ``[n]``.
        strata: number of parts.
    """
    _, inverse, counts = other.unique(return_inverse=True, return_counts=True)
    # The first and the last of equal ones have the ranks cumsum − counts and cumsum − 1.
    doubled = (2 * counts.cumsum(0) - counts - 1)[inverse]
    part = doubled * strata // (2 * len(other))
    total = pairs = 0.0
    for number in range(strata):
        own = part == number
        weight = int(positive[own].sum()) * int((~positive[own]).sum())
        if weight:
            total += weight * auroc(scores[own], positive[own])
            pairs += weight
    return total / pairs if pairs else torch.nan


class BoundedAuroc(NamedTuple):
    """AUROC of several scores, each ``[scores]`` in float64.

    Attributes:
        value: NaN where there are no positives or no negatives.
        error: the exact AUROC is at most so far from `value`.
    """

    value: Tensor
    error: Tensor


class RunningAuroc:
    """The AUROC of several scores over a stream of images, in memory independent of their number.

    Positives and negatives are counted in bins: each edge is a bin, and each interval between two
    neighbouring edges. A pair in different bins counts exactly, and so does a pair at an edge,
    which is a tie; a pair in one interval counts half. The AUROC is off by at most half of the
    fraction of pairs that share an interval. With some of the scores as edges, such as those of
    evenly spaced images, few pairs do; with all scores as edges, no pair does.

    Args:
        edges: of each score, in any order, ``[edges, scores]``.
    """

    def __init__(self, edges: Tensor) -> None:
        self._edges = edges.T.float().sort(1).values.contiguous()
        scores, count = self._edges.shape
        self._bins = 2 * count + 1
        # Negatives, then positives.
        self._counts = torch.zeros(scores, 2 * self._bins, dtype=torch.int32, device=edges.device)

    def add(self, scores: Tensor, positive: Tensor) -> None:
        """Count the scores ``[n, scores]`` of n images; `positive` is a mask of that shape."""
        values = scores.T.float().contiguous()
        left = torch.searchsorted(self._edges, values)
        is_edge = torch.searchsorted(self._edges, values, right=True) > left
        bins = 2 * left + is_edge + self._bins * positive.T
        self._counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.int32))

    def merged(self, others: Iterable["RunningAuroc"]) -> "RunningAuroc":
        """The counts of these images and of those of others with the same edges, on the CPU."""
        merged = RunningAuroc(self._edges.T.cpu())
        merged._counts = sum((part._counts.cpu() for part in others), self._counts.cpu())
        return merged

    def result(self) -> BoundedAuroc:
        """The AUROC so far, and its bound."""
        negatives, positives = self._counts.double().split(self._bins, 1)
        pairs = positives.sum(1) * negatives.sum(1)
        below = negatives.cumsum(1) - negatives
        pairs[pairs == 0] = torch.nan
        shared = (positives * negatives)[:, ::2].sum(1)
        return BoundedAuroc(
            value=(positives * (below + negatives / 2)).sum(1) / pairs, error=shared / 2 / pairs
        )
