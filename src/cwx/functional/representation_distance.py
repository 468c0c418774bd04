"""Distances of the representations of adversarial images from real ones (Dong et al., §2.3).

Mean pairwise Euclidean distances and their ratios r1 and r2 (Eq 6, 7). The representation of
an image is the output of the last convolutional layer as a vector.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

# From maps [n, channels, h, w] to vectors [n, d].
Pooling = Callable[[Tensor], Tensor]

# Rows of the distance matrix in memory at once.
_ROWS = 1024


def flat(maps: Tensor) -> Tensor:
    """All positions of all channels: ``[n, channels, h, w]`` to ``[n, channels · h · w]``."""
    return maps.flatten(1)


def mean_over_positions(maps: Tensor) -> Tensor:
    """Each channel's mean over positions: ``[n, channels, h, w]`` to ``[n, channels]``."""
    return maps.flatten(2).mean(2)


def mean_distance(points: Tensor, others: Tensor) -> Tensor:
    """d̄ of two sets: the mean Euclidean distance over all pairs of ``[n, d]`` and ``[m, d]``."""
    parts = [torch.cdist(part, others).sum(dtype=torch.float64) for part in points.split(_ROWS)]
    return torch.stack(parts).sum() / (len(points) * len(others))


def mean_distance_within(points: Tensor) -> Tensor:
    """d̄ of a set ``[n, d]`` and itself, over pairs of distinct points; NaN for a single point."""
    total = torch.zeros((), dtype=torch.float64, device=points.device)
    for number, part in enumerate(points.split(_ROWS)):
        distances = torch.cdist(part, points)
        # cdist computes distances from products; that of a point to itself is not exactly 0.
        own = distances.diagonal(number * _ROWS)
        total += distances.sum(dtype=torch.float64) - own.sum(dtype=torch.float64)
    return total / (len(points) * (len(points) - 1))


class RealRepresentations:
    """Representations of real images by class, the reference for adversarial images.

    They stay on their device and are moved class by class to that of the adversarial images.

    Args:
        features: by class c, ``[n_c, d]`` with n_c ≥ 2.
    """

    def __init__(self, features: Mapping[int, Tensor]) -> None:
        assert all(len(own) > 1 for own in features.values())
        # cdist computes distances from products, which are more accurate for centred vectors.
        self._centre = torch.stack([own.mean(0) for own in features.values()]).mean(0)
        self._features = {label: own - self._centre for label, own in features.items()}
        self._class_distances: dict[tuple[int, int], Tensor] = {}

    def ratios(
        self, features: Tensor, labels: Tensor, targets: Tensor, originals: Tensor
    ) -> tuple[Tensor, Tensor]:
        """r1 and r2 of adversarial images, each ``[b]`` in float64 on the CPU (Eq 6, 7).

            r1 = d̄(φ(x*), {φ}_y) / d̄({φ}_y, {φ}_y),   r2 = d̄(φ(x*), {φ}_y*) / d̄({φ}_y, {φ}_y*)

        The denominator of r1 is over pairs of distinct points, and its numerator excludes the
        original of x*. So the mean r1 of unperturbed images is exactly 1, the purpose of the
        paper's denominators. A ratio is not finite if all real representations are equal.

        Args:
            features: φ(x*), ``[b, d]``.
            labels, targets: y and y*, ``[b]`` on the CPU, keys of the real representations.
            originals: the index of each image's original among the features of its class, ``[b]``
                on the CPU; -1 if it is not among them.
        """
        features = features - self._centre.to(features)
        r1, r2 = torch.empty(2, len(labels), dtype=torch.float64)
        for label in labels.unique().tolist():
            rows = labels == label
            distance = self._distances(features[rows], label, originals[rows])
            r1[rows] = distance / self._class_distance(label, label, features.device)
        for target in targets.unique().tolist():
            rows = targets == target
            distance = self._distances(features[rows], target, torch.full_like(originals[rows], -1))
            denominators = [
                self._class_distance(y, target, features.device) for y in labels[rows].tolist()
            ]
            r2[rows] = distance / torch.stack(denominators)
        return r1, r2

    def _distances(self, points: Tensor, label: int, originals: Tensor) -> Tensor:
        """The mean distance of each point from the images of a class other than its original."""
        own = self._features[label].to(points)
        distances = torch.cdist(points, own).double().cpu()
        has_original = (originals >= 0).double()
        original_distance = distances.gather(1, originals.clamp(min=0)[:, None])[:, 0]
        return (distances.sum(1) - original_distance * has_original) / (len(own) - has_original)

    def _class_distance(self, label: int, other: int, device: torch.device) -> Tensor:
        """d̄ of two classes, cached."""
        key = (min(label, other), max(label, other))
        if key not in self._class_distances:
            first, second = (self._features[c].to(device) for c in key)
            same = label == other
            distance = mean_distance_within(first) if same else mean_distance(first, second)
            self._class_distances[key] = distance.cpu()
        return self._class_distances[key]
