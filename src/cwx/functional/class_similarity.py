"""What classes neurons respond to, and how much these have in common (Dong et al., §2.2; D4, D5).

A neuron has a distribution over the classes, the shares of its top images; the distributions of
several are rows ``[neurons, classes]``. One that responds to nothing has a row of zeros.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def correlation(distances: Tensor, sigma: float) -> Tensor:
    """C, how much classes have in common, in (0, 1] and positive definite (Eq 2).

        c_ij = exp(−d_ij² / 2σ²)

    Args:
        distances: symmetric, 0 from each class to itself, ``[classes, classes]``.
        sigma: the distance at which two classes have e^(−½), about 0.6, in common.

    Returns:
        ``[classes, classes]`` in float64.

    Raises:
        ValueError: `sigma` is not above 0 and finite, or makes C indefinite: then it is no measure
            of what classes have in common, and squared norms may be negative.
    """
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma is {sigma}: give a number above 0, such as the paper's 1")
    found = torch.exp(-distances.double().square() / (2 * sigma**2))
    lowest = torch.linalg.eigvalsh(found).amin().item() if len(found) else 1.0
    # What rounding alone may make of 0.
    if lowest <= len(found) * torch.finfo(found.dtype).eps:
        raise ValueError(
            f"a sigma of {sigma:g} makes the correlation of these {len(found)} classes indefinite "
            f"(its smallest eigenvalue is {lowest:.2g}): give a smaller sigma"
        )
    return found


def squared_norm(vectors: Tensor, correlation: Tensor) -> Tensor:
    """‖v‖²_C = vᵀCv of each vector ``[..., classes]``: ``[...]``, 0 or more."""
    return ((vectors @ correlation.to(vectors)) * vectors).sum(-1)


def level_consistency(fractions: Tensor, correlation: Tensor) -> Tensor:
    """LC = ‖p‖²_C, in (0, 1] of a distribution: 1 for one class alone (Eq 3).

    Higher for fewer and for closer classes.

    Args:
        fractions: p ``[neurons, classes]``.
        correlation: C.

    Returns:
        ``[neurons]``, 0 for one that responds to nothing.
    """
    return squared_norm(fractions, correlation)


def similarity(first: Tensor, second: Tensor, correlation: Tensor) -> Tensor:
    """CS = ⟨p, q⟩_C / (‖p‖_C ‖q‖_C), in [0, 1] for distributions (Eq 4 and 5).

    Args:
        first, second: p and q, each ``[neurons, classes]``.
        correlation: C.

    Returns:
        ``[neurons]``, 0 where p or q is empty: what responds to nothing is like nothing.
    """
    product = ((first @ correlation.to(first)) * second).sum(-1)
    norms = (squared_norm(first, correlation) * squared_norm(second, correlation)).sqrt()
    return torch.where(norms > 0, product / norms.masked_fill(norms == 0, 1), 0)


def class_shares(labels: Tensor, counted: Tensor, classes: int) -> Tensor:
    """The share of each class among a neuron's top images, ``[neurons, classes]`` in float64.

    Args:
        labels: of the top images, ``[k, neurons]``.
        counted: boolean mask ``[k, neurons]``, which of them count; a neuron may have none.
    """
    fractions = torch.zeros(labels.shape[1], classes, dtype=torch.float64, device=labels.device)
    fractions.scatter_add_(1, labels.T, counted.T.double())
    return fractions / fractions.sum(1, keepdim=True).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Binned:
    """Means, standard deviations (ddof 0) and numbers of values by bin, each ``[bins]``."""

    mean: Tensor
    std: Tensor
    count: Tensor


def binned(x: Tensor, values: Tensor, edges: Tensor) -> Binned:
    """Values around given places: those whose `x` lies between two edges.

    Args:
        x: where each of the values is, ``[n]``; beyond the outer edges the outer bins go on.
        values: ``[n]``.
        edges: ascending, ``[bins + 1]``; each belongs to the bin above.

    Returns:
        Of a bin without values, 0 each.
    """
    bins = torch.bucketize(x.contiguous(), edges[1:-1].to(x), right=True)

    def total(of: Tensor) -> Tensor:
        return of.new_zeros(len(edges) - 1).scatter_add_(0, bins, of)

    count = total(torch.ones_like(bins))
    mean = total(values) / count.clamp(min=1)
    variance = total((values - mean[bins]).square()) / count.clamp(min=1)
    return Binned(mean=mean, std=variance.sqrt(), count=count)
