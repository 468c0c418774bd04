"""How far representations of adversarial images are from those of real ones (Dong et al., §2.3).

Average pairwise Euclidean distances and their ratios (Eq 6, 7; D6). A representation is what the
last convolutional layer gives of an image, as a vector.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

# From maps [n, channels, h, w] to vectors [n, d].
Pooling = Callable[[Tensor], Tensor]

# Rows of a matrix of distances that are held at once.
_ROWS = 1024


def flat(maps: Tensor) -> Tensor:
    """Every place of every channel: ``[n, channels, h, w]`` to ``[n, channels · h · w]``."""
    return maps.flatten(1)


def mean_over_places(maps: Tensor) -> Tensor:
    """Each channel's mean over places: ``[n, channels, h, w]`` to ``[n, channels]``."""
    return maps.flatten(2).mean(2)


def mean_distance(points: Tensor, others: Tensor) -> Tensor:
    """d̄ of two sets: the mean Euclidean distance over all pairs of ``[n, d]`` and ``[m, d]``."""
    parts = [torch.cdist(part, others).sum(dtype=torch.float64) for part in points.split(_ROWS)]
    return torch.stack(parts).sum() / (len(points) * len(others))


def mean_distance_within(points: Tensor) -> Tensor:
    """d̄ of a set ``[n, d]`` and itself, over pairs of distinct points; NaN of a single one."""
    total = torch.zeros((), dtype=torch.float64, device=points.device)
    for number, part in enumerate(points.split(_ROWS)):
        distances = torch.cdist(part, points)
        # A point's distance from itself is not exactly 0 where it is taken from products.
        own = distances.diagonal(number * _ROWS)
        total += distances.sum(dtype=torch.float64) - own.sum(dtype=torch.float64)
    return total / (len(points) * (len(points) - 1))


class RealRepresentations:
    """Representations of real images by class, which adversarial ones are held against.

    They stay on the device that they are given on; what is computed is computed, class by class, on
    that of the adversarial ones.

    Args:
        features: ``[n_c, d]`` of each class c asked for, two or more.
    """

    def __init__(self, features: Mapping[int, Tensor]) -> None:
        assert all(len(own) > 1 for own in features.values())
        # Distances are taken from products, which lose less of centred vectors.
        self._centre = torch.stack([own.mean(0) for own in features.values()]).mean(0)
        self._features = {label: own - self._centre for label, own in features.items()}
        self._means: dict[tuple[int, int], Tensor] = {}

    def ratios(
        self, features: Tensor, labels: Tensor, targets: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """r1 and r2 of adversarial images, each ``[b]`` in float64 on the CPU (Eq 6, 7).

            r1 = d̄(φ(x*), {φ}_y) / d̄({φ}_y, {φ}_y),   r2 = d̄(φ(x*), {φ}_y*) / d̄({φ}_y, {φ}_y*)

        The denominator of r1 is over pairs of distinct points, and its numerator leaves out the
        image that x* was made from: so a representation that an attack does not change has a mean
        r1 of exactly 1, for which the paper has the denominators. Where all real representations
        are one point, a ratio is not finite.

        Args:
            features: ``[b, d]``.
            labels, targets: y and y* of each, ``[b]`` on the CPU, classes that were given.
            places: where the original of each lies among the features of its class, ``[b]`` on the
                CPU; -1 if it is not among them.
        """
        features = features - self._centre.to(features)
        r1, r2 = torch.empty(2, len(labels), dtype=torch.float64)
        for label in labels.unique().tolist():
            rows = labels == label
            distance = self._from(features[rows], label, places[rows])
            r1[rows] = distance / self._mean(label, label, features.device)
        for target in targets.unique().tolist():
            rows = targets == target
            distance = self._from(features[rows], target, torch.full_like(places[rows], -1))
            means = [self._mean(y, target, features.device) for y in labels[rows].tolist()]
            r2[rows] = distance / torch.stack(means)
        return r1, r2

    def _from(self, points: Tensor, label: int, places: Tensor) -> Tensor:
        """The mean distance of each point from a class, but for the image at its place."""
        own = self._features[label].to(points)
        distances = torch.cdist(points, own).double().cpu()
        there = (places >= 0).double()
        original = distances.gather(1, places.clamp(min=0)[:, None])[:, 0]
        return (distances.sum(1) - original * there) / (len(own) - there)

    def _mean(self, label: int, other: int, device: torch.device) -> Tensor:
        """A denominator, computed once."""
        key = (min(label, other), max(label, other))
        if key not in self._means:
            first, second = (self._features[c].to(device) for c in key)
            same = label == other
            found = mean_distance_within(first) if same else mean_distance(first, second)
            self._means[key] = found.cpu()
        return self._means[key]
