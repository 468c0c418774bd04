"""Which images of a class carry a pattern that its explanations reveal (CWX, §5; C12).

A trigger is faint beside what natural images differ in anyway. The matched filter in coloured
noise, which is Fisher's linear discriminant (Fisher 1936), weighs each direction by how little
the other classes vary along it. It tells the images of the class apart into two groups (Otsu
1979), and the means of the groups give a better pattern, from which the next round starts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Groups settle after a few.
ROUNDS = 20
# Images of a class below which halves part well by chance.
FEWEST = 50


@dataclass(frozen=True)
class Groups:
    """The images of a class in two groups.

    Attributes:
        carrying: boolean mask ``[n]``: the group that lies further from the other classes.
        at_first: the same, along the pattern itself, before any round improved it.
        separation: the share in 0-1 of the variance along the pattern that lies between the
            groups, the mean over both halves: 2/π ≈ 0.64 where values are normal, 0.75 where they
            are uniform. Many near-copies of one image part as well as a trigger's carriers.
    """

    carrying: Tensor
    at_first: Tensor
    separation: float


@dataclass(frozen=True)
class LeaveOneClassOutGaussian:
    """The images of all classes but one, flat in unit pixels, as a Gaussian.

    Attributes:
        mean: ``[d]``.
        root: the lower Cholesky factor of their covariance ``[d, d]``.
    """

    mean: Tensor
    root: Tensor

    def whiten(self, vectors: Tensor) -> Tensor:
        """Vectors ``[n, d]`` such that the leave_one_class_out_gaussians vary alike in every direction."""
        white: Tensor = torch.linalg.solve_triangular(self.root, vectors.T, upper=False)
        return white.T

    def whiten_images(self, images: Tensor) -> Tensor:
        """Bytes ``[n, C, H, W]`` as white vectors ``[n, d]``, with the leave_one_class_out_gaussians' mean at 0."""
        return self.whiten(_flat(images) - self.mean)

    def whiten_pattern(self, pattern: Tensor) -> Tensor:
        """The white direction ``[d]`` of a pattern ``[C, H, W]``."""
        return self.whiten(pattern.double().flatten()[None])[0]


def leave_one_class_out_gaussians(
    images: Tensor, labels: Tensor
) -> Iterator[tuple[int, LeaveOneClassOutGaussian]]:
    """For each class, the Gaussian of all others.

    Covariances are shrunk towards a multiple of the identity (Ledoit and Wolf 2004), by the share
    that is best for all images together, in proportion to how many are left.

    Args:
        images: bytes ``[n, C, H, W]``.
        labels: ``[n]``, of two classes or more.

    Memory: about five square matrices of the C·H·W values in float64 (`gaussian_bytes`), and
    the largest class in float64.
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
    fraction = _shrinkage(gram / count, fourth / count, count)
    for label in classes:
        own = _flat(images[labels == label]) - centre
        left = count - len(own)
        mean = (total - own.sum(0)) / left
        covariance = (gram - own.T @ own) / left - torch.outer(mean, mean)
        # Above 0 even where no pixel ever varies.
        scale = covariance.diagonal().mean().clamp_min(1e-12)
        shrunk = min(fraction * count / left, 1.0)
        covariance = (1 - shrunk) * covariance
        covariance.diagonal().add_(shrunk * scale)
        yield label, LeaveOneClassOutGaussian(mean + centre, torch.linalg.cholesky(covariance))


def gaussian_bytes(values: int) -> int:
    """About the memory that `leave_one_class_out_gaussians` takes for images of so many values."""
    return 5 * 8 * values**2


def _flat(images: Tensor) -> Tensor:
    return images.flatten(1).double() / 255


def _shrinkage(covariance: Tensor, fourth: float, count: int) -> float:
    """Ledoit and Wolf's share of the identity, from the mean fourth power of the norm.

    Never 0, for pixels that never vary.
    """
    square = covariance.square().sum().item()
    noise = (fourth - square) / count
    spread = square - covariance.trace().item() ** 2 / len(covariance)
    return min(max(noise / max(spread, 1e-30), 1e-6), 1.0)


def split_by_pattern(white: Tensor, revealed: Tensor) -> Groups:
    """The images of one class in two groups, along the pattern and what it leads to.

    Each half of the images, every other one, is told apart by what the other half taught: along a
    direction fitted to themselves, even images without any pattern part well.

    Args:
        white: the images as `LeaveOneClassOutGaussian.whiten_images` gives them, `FEWEST` or more.
        revealed: the pattern as `LeaveOneClassOutGaussian.whiten_pattern` gives it, of any scale and sign.
    """
    first, _ = _along(white, revealed)
    carrying, separations = torch.zeros_like(first), []
    for half in (torch.arange(len(white)) % 2).bool(), (torch.arange(len(white)) + 1) % 2 > 0:
        carrying[half], separation = _along(white[half], _improved(white[~half], revealed))
        separations.append(separation)
    return Groups(carrying=carrying, at_first=first, separation=sum(separations) / 2)


def _along(white: Tensor, direction: Tensor) -> tuple[Tensor, float]:
    """The group that lies further from the other classes, whose mean is at 0; the separation."""
    values = white @ direction
    high, separation = two_groups(values)
    if separation == 0:
        return high, separation
    return (high if values[high].mean().abs() > values[~high].mean().abs() else ~high), separation


def _improved(white: Tensor, direction: Tensor) -> Tensor:
    """The best separating of the directions that lead from one to the next.

    No more than `ROUNDS` follow the first, and none once the groups stay the same.
    """
    best, reached = direction, 0.0
    before = torch.zeros(len(white), dtype=torch.bool)
    for _ in range(ROUNDS + 1):
        high, separation = two_groups(white @ direction)
        if separation > reached:
            best, reached = direction, separation
        if not high.any() or torch.equal(high, before):
            break
        before, direction = high, white[high].mean(0) - white[~high].mean(0)
    return best


def two_groups(values: Tensor) -> tuple[Tensor, float]:
    """The higher of two groups of `values` ``[n]``, and their separation (Otsu 1979).

    The separation is the share of the variance that lies between the groups, at the cut where it
    is largest; 0 and an empty group if all values are equal.
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
    # Equal values stay together.
    between = torch.where(ordered[1:] > ordered[:-1], between, 0)
    cut = int(between.argmax())
    high[order[cut + 1 :]] = True
    return high, min((between[cut] / variance).item(), 1.0)
