"""How close classes are, and vectors over classes by it (Dong et al., §2.2.1; D4)."""

import torch
from torch import Tensor


def correlation(distances: Tensor, sigma: float) -> Tensor:
    """C with c_ij = exp(−d_ij² / 2σ²) of distances ``[classes, classes]`` (Eq 2).

    Raises:
        ValueError: σ is not above 0.
    """
    if sigma <= 0:
        raise ValueError(f"sigma is {sigma}: give a number above 0")
    return torch.exp(-distances.square() / (2 * sigma**2))


def squared_norm(vectors: Tensor, correlation: Tensor) -> Tensor:
    """‖v‖²_C = vᵀ C v of vectors ``[…, classes]`` (Eq 3)."""
    return ((vectors @ correlation) * vectors).sum(-1)
