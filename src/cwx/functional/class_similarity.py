"""Class distributions of neurons, and their level and similarity (Dong et al., §2.2).

The distribution of a neuron is the fraction of each class among its top images; several are rows
``[neurons, classes]``. An inactive neuron has a row of zeros.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def correlation(distances: Tensor, sigma: float) -> Tensor:
    """The correlation C of classes, positive definite with entries in (0, 1] (Eq 2).

        c_ij = exp(−d_ij² / 2σ²)

    Args:
        distances: symmetric, 0 from each class to itself, ``[classes, classes]``.
        sigma: the distance at which the correlation is e^(−½), about 0.6.

    Returns:
        ``[classes, classes]`` in float64.

    Raises:
        ValueError: `sigma` is not above 0 and finite, or C is indefinite, so that squared norms
            could be negative.
    """
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma is {sigma}: give a number above 0, such as the paper's 1")
    matrix = torch.exp(-distances.double().square() / (2 * sigma**2))
    lowest = torch.linalg.eigvalsh(matrix).amin().item() if len(matrix) else 1.0
    # An eigenvalue of 0 can be computed as up to n · eps.
    if lowest <= len(matrix) * torch.finfo(matrix.dtype).eps:
        raise ValueError(
            f"a sigma of {sigma:g} makes the correlation of these {len(matrix)} classes indefinite "
            f"(its smallest eigenvalue is {lowest:.2g}): give a smaller sigma"
        )
    return matrix


def squared_norm(vectors: Tensor, correlation: Tensor) -> Tensor:
    """‖v‖²_C = vᵀCv of each vector ``[..., classes]``: ``[...]``, ≥ 0."""
    return ((vectors @ correlation.to(vectors)) * vectors).sum(-1)


def level_consistency(fractions: Tensor, correlation: Tensor) -> Tensor:
    """LC = ‖p‖²_C, in (0, 1] for a distribution p (Eq 3).

    It is 1 for a single class, and higher for fewer and for closer classes.

    Args:
        fractions: p ``[neurons, classes]``.
        correlation: C.

    Returns:
        ``[neurons]``, 0 for an inactive neuron.
    """
    return squared_norm(fractions, correlation)


def similarity(first: Tensor, second: Tensor, correlation: Tensor) -> Tensor:
    """CS = ⟨p, q⟩_C / (‖p‖_C ‖q‖_C), in [0, 1] for distributions (Eq 4 and 5).

    Args:
        first, second: p and q, each ``[neurons, classes]``.
        correlation: C.

    Returns:
        ``[neurons]``, 0 where p or q is zero (an inactive neuron).
    """
    product = ((first @ correlation.to(first)) * second).sum(-1)
    norms = (squared_norm(first, correlation) * squared_norm(second, correlation)).sqrt()
    return torch.where(norms > 0, product / norms.masked_fill(norms == 0, 1), 0)


def class_fractions(labels: Tensor, mask: Tensor, classes: int) -> Tensor:
    """The fraction of each class among a neuron's top images, ``[neurons, classes]`` in float64.

    Args:
        labels: of the top images, ``[k, neurons]``.
        mask: boolean ``[k, neurons]``, the images to count; may be empty for a neuron, whose row is
            then 0.
        classes: number of classes.
    """
    counts = torch.zeros(labels.shape[1], classes, dtype=torch.float64, device=labels.device)
    counts.scatter_add_(1, labels.T, mask.T.double())
    return counts / counts.sum(1, keepdim=True).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class BinStatistics:
    """Mean, standard deviation (ddof 0) and number of the values in each bin, each ``[bins]``."""

    mean: Tensor
    std: Tensor
    count: Tensor


def bin_statistics(x: Tensor, values: Tensor, edges: Tensor) -> BinStatistics:
    """Statistics of the values whose `x` lies between two neighbouring edges.

    Args:
        x: the coordinate of each value, ``[n]``; coordinates outside all edges count in the first
            or last bin.
        values: ``[n]``.
        edges: ascending, ``[bins + 1]``; each belongs to the bin above.

    Returns:
        All 0 for a bin without values.
    """
    bins = torch.bucketize(x.contiguous(), edges[1:-1].to(x), right=True)

    def bin_sums(values: Tensor) -> Tensor:
        return values.new_zeros(len(edges) - 1).scatter_add_(0, bins, values)

    count = bin_sums(torch.ones_like(bins))
    mean = bin_sums(values) / count.clamp(min=1)
    variance = bin_sums((values - mean[bins]).square()) / count.clamp(min=1)
    return BinStatistics(mean=mean, std=variance.sqrt(), count=count)
