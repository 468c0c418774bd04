"""Erasure of directions from the inputs of a linear layer (LEACE, Belrose et al. 2023).

Of all affine maps after which a direction has no linear effect, the one that changes the inputs
least: h' = h − P (h − μ), where P projects onto the directions and is orthogonal in the norm of the
inverse covariance. It takes away what the inputs have along the directions, together with what they
have in correlation with it, and nothing that varies without them.
"""

import torch
from torch import Tensor

# Directions below this fraction of the largest one are combinations of the others.
_RANK = 1e-6


def shrunk_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean ``[d]`` and the covariance ``[d, d]`` of features ``[n, d]``, in float64.

    The covariance is shrunk towards a multiple of the identity, by the amount of oracle
    approximating shrinkage (Chen et al. 2010), so that it is regular also for n < d.

    Raises:
        ValueError: the features do not vary.
    """
    values = features.double()
    mean, (count, size) = values.mean(0), values.shape
    deviations = values - mean
    covariance = deviations.T @ deviations / count
    trace, squares = covariance.trace(), covariance.square().sum()
    if not trace > 0:
        raise ValueError(f"the {size} inputs of the layer are the same for all {count} images")
    spread = (count + 1) * (squares - trace**2 / size)
    # A multiple of the identity needs no shrinkage, and any amount leaves it as it is.
    amount = ((squares + trace**2) / spread).clamp(max=1) if spread > 0 else torch.ones_like(trace)
    identity = torch.eye(size, dtype=values.dtype, device=values.device)
    return mean, (1 - amount) * covariance + amount * trace / size * identity


def erase_directions(
    weight: Tensor, bias: Tensor, features: Tensor, directions: Tensor, strength: float
) -> tuple[Tensor, Tensor]:
    """The weight and the bias of a linear layer after directions of its inputs are erased.

        W' = W (I − s P),  b' = b + s W P μ,  P = L Q Qᵀ L⁻¹,  Σ = L Lᵀ

    with an orthonormal basis Q of L⁻¹ V, the mean μ and the shrunk covariance Σ of the features.
    With s = 1 a shift of the inputs along a direction leaves the outputs as they are; above 1 it
    moves them the other way, by s − 1 times as much.

    Args:
        weight: ``[K, d]``.
        bias: ``[K]``.
        features: inputs of the layer that are to be kept, ``[n, d]``.
        directions: V, one per row ``[r, d]``; directions of length 0 are left out.
        strength: s.

    Raises:
        ValueError: the features do not vary.
    """
    mean, covariance = shrunk_covariance(features)
    factor = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(factor, directions.double().T, upper=False)
    lengths = white.norm(dim=0)
    white = white[:, lengths > 0] / lengths[lengths > 0]
    basis, values, _ = torch.linalg.svd(white, full_matrices=False)
    basis = basis[:, values > _RANK * values.max()] if len(values) else basis
    # W P = W L Q Qᵀ L⁻¹
    own = weight.double() @ factor @ basis
    removed = strength * own @ torch.linalg.solve_triangular(factor.T, basis, upper=True).T
    return (weight - removed).to(weight.dtype), (bias + removed @ mean).to(bias.dtype)
