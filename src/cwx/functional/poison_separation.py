"""Poisoned training images as a group apart among the representations of their class.

Activation clustering (Chen et al. 2018, *Detecting Backdoor Attacks on Deep Neural Networks by
Activation Clustering*) and spectral signatures (Tran et al. 2018, *Spectral Signatures in Backdoor
Attacks*). Representations are the inputs of the last linear layer for the training images of one
class, ``[n, d]``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.functional.rng import stream

# A smaller class has no groups to speak of.
MIN_IMAGES = 10
# Steps of Lloyd's algorithm; it usually converges within twenty.
_MAX_STEPS = 300
# Pairs of points whose distances are held at once.
_PAIRS = 2**22


@dataclass(frozen=True, kw_only=True)
class PrincipalComponents:
    """The principal components of centred representations.

    Attributes:
        coordinates: ``[n, k]`` along the first k axes.
        variances: the squared singular values σ², all of them, in falling order.
    """

    coordinates: Tensor
    variances: Tensor


def principal_components(representations: Tensor, count: int) -> PrincipalComponents:
    """The first `count` principal components (or fewer, if there are no more), in float64.

    The sign of an axis is arbitrary.

    Args:
        representations: ``[n, d]``.

    Raises:
        ValueError: a value is not finite.
    """
    centred = representations.double() - representations.double().mean(0)
    if not centred.isfinite().all():
        raise ValueError("the representations have values that are not finite numbers")
    # The smaller of the two Gram matrices has the same eigenvalues.
    narrow = centred.shape[1] <= centred.shape[0]
    gram = centred.T @ centred if narrow else centred @ centred.T
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)[:, :count]
    # XXᵀ has the coordinates as eigenvectors, up to their length σ.
    coordinates = centred @ vectors if narrow else vectors * values[:count].sqrt()
    return PrincipalComponents(coordinates=coordinates, variances=values)


def leading_variance(components: PrincipalComponents) -> float:
    """σ₁² / n, the variance along the first axis of a class's representations: a group apart gives
    the class an axis of its own. Its unit is that of the squared features.
    """
    return (components.variances[0] / len(components.coordinates)).item()


def spectral_scores(components: PrincipalComponents) -> Tensor:
    """The outlier score of each image ``[n]``: its squared coordinate along the first axis (Tran
    et al. 2018, Algorithm 1).
    """
    return components.coordinates[:, 0].square()


@dataclass(frozen=True, kw_only=True)
class TwoGroups:
    """The points of a class in two groups.

    Attributes:
        smaller: boolean mask ``[n]`` of the smaller group; empty if all points are equal.
        fraction: the size of the smaller group, as a fraction of all, 0-0.5.
        silhouette: the mean silhouette of the points, in −1 to 1; 0 if a group is empty.
        scores: ``[n]``, the distance to the mean of the larger group minus that to the smaller
            group's; high in the smaller group.
    """

    smaller: Tensor
    fraction: float
    silhouette: float
    scores: Tensor


def activation_clusters(coordinates: Tensor, *, restarts: int, seed: int) -> TwoGroups:
    """2-means of a class's representations, the best of several starts.

    The first start is the point that is farthest from the mean, and the point farthest from that;
    further starts are two random points. The start with the smallest sum of squared distances wins.

    Args:
        coordinates: ``[n, k]``, principal components (the paper: 10 independent components).
        restarts: the number of starts, 1 or more.
        seed: of the random starts.
    """
    points = coordinates.double()
    starts = [_farthest_pair(points)]
    starts += [
        torch.randperm(len(points), generator=stream(seed, r))[:2] for r in range(1, restarts)
    ]
    runs = [_lloyd(points, points[start]) for start in starts]
    second, centres = min(runs, key=lambda run: _inertia(points, *run))
    # The smaller group is the second one.
    if 2 * int(second.sum()) > len(second):
        second, centres = ~second, centres.flip(0)
    distances = _distances(points, centres)
    return TwoGroups(
        smaller=second,
        fraction=second.double().mean().item(),
        silhouette=silhouette(points, second),
        scores=distances[:, 0] - distances[:, 1],
    )


def _farthest_pair(points: Tensor) -> Tensor:
    first = (points - points.mean(0)).square().sum(1).argmax()
    second = (points - points[first]).square().sum(1).argmax()
    return torch.stack([first, second])


def _lloyd(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm: whether each point is in the second group, and the two means."""
    second = torch.zeros(len(points), dtype=torch.bool)
    for _ in range(_MAX_STEPS):
        nearest = _squares(points, centres[1]) < _squares(points, centres[0])
        if not nearest.any() or nearest.all() or torch.equal(nearest, second):
            break
        second = nearest
        centres = torch.stack([points[~second].mean(0), points[second].mean(0)])
    return second, centres


def _squares(points: Tensor, centre: Tensor) -> Tensor:
    return (points - centre).square().sum(1)


def _distances(points: Tensor, others: Tensor) -> Tensor:
    # Exact for near points, unlike the faster mode.
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def _inertia(points: Tensor, second: Tensor, centres: Tensor) -> float:
    return _squares(points, centres[second.long()]).sum().item()


def silhouette(points: Tensor, second: Tensor) -> float:
    """The mean silhouette (Rousseeuw 1987) of points ``[n, k]`` in two groups, in −1 to 1.

        s = (b − a) / max(a, b)

    a is a point's mean distance to the others of its group, b to the other group; s is 0 for a
    point alone in its group, and for all points if a group is empty.

    Args:
        second: boolean mask ``[n]`` of the second group.
    """
    sizes = torch.stack([(~second).sum(), second.sum()]).double()
    if not sizes.all():
        return 0.0
    points, own, total = points.double(), second.long(), 0.0
    membership = torch.stack([~second, second], 1).double()
    for rows in torch.arange(len(points)).split(max(1, _PAIRS // len(points))):
        sums = _distances(points[rows], points) @ membership
        group = own[rows, None]
        within = sums.gather(1, group)[:, 0] / (sizes[own[rows]] - 1).clamp(min=1)
        between = sums.gather(1, 1 - group)[:, 0] / sizes[1 - own[rows]]
        largest = torch.maximum(within, between)
        alone = (sizes[own[rows]] == 1) | (largest == 0)
        total += ((between - within) / largest)[~alone].sum().item()
    return total / len(points)
