"""How alike two masks are: their overlap, and the order of their pixels."""

import torch
from torch import Tensor


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """|a ∩ b| / |a ∪ b| of each pair of boolean masks ``[n, …]``, ``[n]`` in 0-1 (float64).

    Two random masks of a fraction p of the pixels have about p / (2 − p).
    """
    both, any_ = (a & b).flatten(1).sum(1), (a | b).flatten(1).sum(1)
    return both.double() / any_.double()


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's ρ between each pair of rows of ``[n, m]``, ``[n]`` in float64.

    Equal values have the mean of their ranks. NaN if all values of a row are equal.
    """
    x, y = (torch.stack([_ranks(row) for row in rows]) for rows in (a, b))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()


def _ranks(values: Tensor) -> Tensor:
    _, groups, counts = values.double().unique(return_inverse=True, return_counts=True)
    # The mean rank of a group, from 1: those before it, and half of its own.
    ends = counts.cumsum(0).double()
    mean_ranks: Tensor = ends - (counts.double() - 1) / 2
    return mean_ranks[groups]
