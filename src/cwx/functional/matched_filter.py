"""Detection of the images of a class that carry a pattern (CWX, §5).

A trigger is faint compared to the variation of natural images. The matched filter in coloured
noise, which is Fisher's linear discriminant (Fisher 1936), divides each direction by the variance
of the other classes along it. The filter outputs of the images of a class are split into two groups
(Otsu 1979). The difference of the group means is a better pattern, with which the next round
starts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# The groups converge after a few rounds.
MAX_ROUNDS = 20
# With fewer images, the groups can have a high separation by chance.
MIN_IMAGES_PER_CLASS = 50


@dataclass(frozen=True)
class PatternSplit:
    """The split of the images of a class into two groups.

    Attributes:
        carriers: boolean mask ``[n]`` of the group that is further from the other classes.
        initial_carriers: the same for the given pattern, before its improvement.
        separation: the fraction in 0-1 of the variance along the pattern that is between the
            groups, the mean over both halves of the images. It is 2/π ≈ 0.64 for normally
            distributed values and 0.75 for uniform ones. It is high for carriers of a trigger, but
            also for many near-copies of one image.
    """

    carriers: Tensor
    initial_carriers: Tensor
    separation: float


@dataclass(frozen=True)
class LeaveOneClassOutGaussian:
    """A Gaussian fitted to the images of all classes except one, flat in unit pixels.

    Attributes:
        mean: ``[d]``.
        cholesky: the lower Cholesky factor of the covariance, ``[d, d]``.
    """

    mean: Tensor
    cholesky: Tensor

    def whiten(self, vectors: Tensor) -> Tensor:
        """Whitened vectors ``[n, d]``: under this Gaussian their covariance is the identity."""
        white: Tensor = torch.linalg.solve_triangular(self.cholesky, vectors.T, upper=False)
        return white.T

    def whiten_images(self, images: Tensor) -> Tensor:
        """Whitened images ``[n, d]`` from bytes ``[n, C, H, W]``; the mean of others becomes 0."""
        return self.whiten(_flat(images) - self.mean)

    def whiten_pattern(self, pattern: Tensor) -> Tensor:
        """The whitened direction ``[d]`` of a pattern ``[C, H, W]``."""
        return self.whiten(pattern.double().flatten()[None])[0]


class Indexable(Protocol):
    """A tensor, or what gives the part of one that a boolean mask selects."""

    def __getitem__(self, mask: Tensor, /) -> Tensor: ...


def leave_one_class_out_gaussians(
    images: Indexable, labels: Tensor
) -> Iterator[tuple[int, LeaveOneClassOutGaussian]]:
    """Each class with the Gaussian of all other classes.

    Covariances are shrunk towards a multiple of the identity (Ledoit and Wolf 2004). The shrinkage
    coefficient is computed once for all images, and scaled by n / (images of the other classes).

    Memory: about five matrices ``[d, d]`` in float64, d = C·H·W (`gaussian_bytes`), and the images
    of the largest class in float64.

    Args:
        images: bytes ``[n, C, H, W]``; only the images of one class at a time are in memory.
        labels: ``[n]``, of two classes or more.
    """
    classes = labels.unique().tolist()
    sums = [_flat(images[labels == label]).sum(0) for label in classes]
    centre = torch.stack(sums).sum(0) / len(labels)
    count, total = len(labels), torch.zeros_like(centre)
    gram, fourth = torch.zeros(len(centre), len(centre), dtype=torch.float64), 0.0
    for label in classes:
        own = _flat(images[labels == label]) - centre
        total, gram = total + own.sum(0), gram + own.T @ own
        fourth += own.square().sum(1).square().sum().item()
    shrinkage = _shrinkage(gram / count, fourth / count, count)
    for label in classes:
        own = _flat(images[labels == label]) - centre
        remaining = count - len(own)
        mean = (total - own.sum(0)) / remaining
        covariance = (gram - own.T @ own) / remaining - torch.outer(mean, mean)
        # Above 0 even if all pixels are constant.
        scale = covariance.diagonal().mean().clamp_min(1e-12)
        fraction = min(shrinkage * count / remaining, 1.0)
        covariance = (1 - fraction) * covariance
        covariance.diagonal().add_(fraction * scale)
        yield label, LeaveOneClassOutGaussian(mean + centre, torch.linalg.cholesky(covariance))


def gaussian_bytes(values: int) -> int:
    """Approximate memory of `leave_one_class_out_gaussians` for images of `values` values each."""
    return 5 * 8 * values**2


def _flat(images: Tensor) -> Tensor:
    return images.flatten(1).double() / 255


def _shrinkage(covariance: Tensor, fourth: float, count: int) -> float:
    """Ledoit and Wolf's weight of the identity, from the mean fourth power of the norm.

    At least 1e-6, so that constant pixels do not make the covariance singular.
    """
    square = covariance.square().sum().item()
    noise = (fourth - square) / count
    spread = square - covariance.trace().item() ** 2 / len(covariance)
    return min(max(noise / max(spread, 1e-30), 1e-6), 1.0)


def split_by_pattern(white: Tensor, revealed: Tensor) -> PatternSplit:
    """Split the images of one class into two groups along an improved pattern.

    Cross-validation: the odd images are split along the direction fitted to the even ones, and vice
    versa. Along a direction fitted to the same images, the separation would be high even without a
    pattern.

    Args:
        white: at least `MIN_IMAGES_PER_CLASS` images, whitened by
            `LeaveOneClassOutGaussian.whiten_images`.
        revealed: the pattern, whitened by `LeaveOneClassOutGaussian.whiten_pattern`; its scale and
            sign do not matter.
    """
    initial, _ = _split_along(white, revealed)
    carriers, separations = torch.zeros_like(initial), []
    for half in (torch.arange(len(white)) % 2).bool(), (torch.arange(len(white)) + 1) % 2 > 0:
        direction = _improve_direction(white[~half], revealed)
        carriers[half], separation = _split_along(white[half], direction)
        separations.append(separation)
    return PatternSplit(
        carriers=carriers, initial_carriers=initial, separation=sum(separations) / 2
    )


def _split_along(white: Tensor, direction: Tensor) -> tuple[Tensor, float]:
    """The group whose mean is further from 0, the mean of the other classes; the separation."""
    values = white @ direction
    high, separation = two_groups(values)
    if separation == 0:
        return high, separation
    return (high if values[high].mean().abs() > values[~high].mean().abs() else ~high), separation


def _improve_direction(white: Tensor, direction: Tensor) -> Tensor:
    """The direction of highest separation in a sequence that starts with `direction`.

    The next direction is the difference of the group means. The sequence ends after `MAX_ROUNDS`
    further directions, or when the groups no longer change.
    """
    best_direction, best_separation = direction, 0.0
    previous = torch.zeros(len(white), dtype=torch.bool)
    for _ in range(MAX_ROUNDS + 1):
        high, separation = two_groups(white @ direction)
        if separation > best_separation:
            best_direction, best_separation = direction, separation
        if not high.any() or torch.equal(high, previous):
            break
        previous, direction = high, white[high].mean(0) - white[~high].mean(0)
    return best_direction


def two_groups(values: Tensor) -> tuple[Tensor, float]:
    """Otsu's split of `values` ``[n]``: the mask of the higher group, and the separation (1979).

    The separation is the fraction of the variance that is between the groups, at the threshold that
    maximises it. If all values are equal, the mask is empty and the separation 0.
    """
    ordered, order = values.double().sort()
    count = len(values)
    high = torch.zeros(count, dtype=torch.bool)
    if count < 2 or ordered[0] == ordered[-1]:
        return high, 0.0
    variance = ordered.var(correction=0)
    low = torch.arange(1, count, dtype=torch.float64)
    sums = ordered.cumsum(0)
    lead = (sums[-1] - sums[:-1]) / (count - low) - sums[:-1] / low
    between = low * (count - low) / count**2 * lead.square()
    # A threshold between equal values is not allowed.
    between = torch.where(ordered[1:] > ordered[:-1], between, 0)
    cut = int(between.argmax())
    high[order[cut + 1 :]] = True
    return high, min((between[cut] / variance).item(), 1.0)
