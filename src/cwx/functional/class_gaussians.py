"""Class-conditional Gaussians on representations (Dong et al., §2.4; D7).

    p(φ(x) | y = i) = N(μ_i, Σ_i)

Means and covariances are those of maximum likelihood, of moments that are summed batch by batch in
float64. What is assumed of Σ_i is an object: `Tied`, `Diagonal` or `LedoitWolf`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_REMEDY = "give a larger ridge, choose the covariance ledoit_wolf, or fit to more images"


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What is known of a class, in float64.

    Attributes:
        count: n, its images.
        mean: μ, ``[d]``.
        scatter: Σ_k (x_k − μ)(x_k − μ)ᵀ, ``[d, d]``.
        quartic: Σ_k ‖x_k − μ‖⁴, a scalar, which Ledoit and Wolf's coefficient needs.
    """

    count: int
    mean: Tensor
    scatter: Tensor
    quartic: Tensor


class RunningMoments:
    """`Moments` of a class, a batch at a time; memory is of d², however many images there are."""

    def __init__(self) -> None:
        self._count = 0

    def update(self, features: Tensor) -> None:
        """Count a batch ``[b, d]``."""
        if not len(features):
            return
        features = features.double()
        if not self._count:
            # Sums of powers lose less around a point near the mean.
            self._origin = features.mean(0)
            size = len(self._origin)
            self._sum, self._weighted = self._origin.new_zeros((2, size))
            self._products = self._origin.new_zeros((size, size))
            self._squares = self._origin.new_zeros(())
        moved = features - self._origin
        lengths = moved.square().sum(1)
        self._count += len(moved)
        self._sum += moved.sum(0)
        self._products += moved.T @ moved
        self._weighted += lengths @ moved
        self._squares += lengths.square().sum()

    def moments(self) -> Moments:
        """Of all batches.

        Raises:
            ValueError: there was no image.
        """
        if not self._count:
            raise ValueError("a class has no images to fit a Gaussian to: leave it out of the data")
        n, mean = self._count, self._sum / self._count
        length = mean @ mean
        # Σ (‖z‖² − 2 zᵀm + ‖m‖²)² with z the points and m their mean, both from the origin.
        quartic = (
            self._squares
            + 4 * (mean @ self._products @ mean)
            - 4 * (mean @ self._weighted)
            + 2 * length * self._products.trace()
            - 3 * n * length.square()
        )
        return Moments(
            count=n,
            mean=self._origin + mean,
            scatter=self._products - n * torch.outer(mean, mean),
            quartic=quartic,
        )


class Gaussians(Protocol):
    """One Gaussian a class."""

    def log_prob(self, features: Tensor, classes: Tensor) -> Tensor:
        """log p(φ | class) of features ``[b, d]`` and a class for each ``[b]``, in float64."""


class Covariance(Protocol):
    """What is assumed of the covariances of classes."""

    def __call__(self, classes: Iterable[Moments]) -> Gaussians:
        """The Gaussians of all classes, in their order.

        Raises:
            ValueError: a covariance is singular; with the remedy.
        """

    def size(self, classes: int, features: int) -> int:
        """The number of values of 8 bytes that it holds."""


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Gaussians by Cholesky factors.

    Attributes:
        means: ``[classes, d]``.
        factors: L with Σ = L Lᵀ, ``[classes, d, d]``, or ``[1, d, d]`` where all share one.
    """

    means: Tensor
    factors: Tensor

    def log_prob(self, features: Tensor, classes: Tensor) -> Tensor:
        residuals = features.double() - self.means[classes]
        shared = len(self.factors) == 1
        which = torch.zeros_like(classes) if shared else classes
        lengths = residuals.new_empty(len(residuals))
        for factor in which.unique().tolist():
            rows = which == factor
            white = torch.linalg.solve_triangular(
                self.factors[factor], residuals[rows].T, upper=False
            )
            lengths[rows] = white.square().sum(0)
        half_log_det = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        return -(lengths + residuals.shape[1] * math.log(2 * math.pi)) / 2 - half_log_det[which]


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Gaussians whose axes are those of the features: `means` and `variances` ``[classes, d]``."""

    means: Tensor
    variances: Tensor

    def log_prob(self, features: Tensor, classes: Tensor) -> Tensor:
        variances = self.variances[classes]
        squares = (features.double() - self.means[classes]).square() / variances
        return -(squares + (2 * math.pi * variances).log()).sum(1) / 2


class Tied:
    """One covariance for all classes: Σ = 1/N Σ_c scatter_c + ridge · v · I, v its mean variance.

    Raises:
        ValueError: the ridge is negative.
    """

    def __init__(self, *, ridge: float) -> None:
        self.ridge = _checked(ridge)

    def __call__(self, classes: Iterable[Moments]) -> Gaussians:
        means, count, scatter = [], 0, torch.zeros(())
        for moments in classes:
            means.append(moments.mean)
            count += moments.count
            scatter = scatter.to(moments.scatter) + moments.scatter
        covariance = scatter / count
        ridge = self.ridge * covariance.diagonal().mean()
        covariance.diagonal().add_(ridge)
        factor = _factor(covariance, "the covariance that all classes share")
        return Dense(means=torch.stack(means), factors=factor[None])

    def size(self, classes: int, features: int) -> int:
        return features**2


class Diagonal:
    """Variances alone, for each class: the diagonal of scatter / n, plus ridge · its mean.

    Raises:
        ValueError: the ridge is negative.
    """

    def __init__(self, *, ridge: float) -> None:
        self.ridge = _checked(ridge)

    def __call__(self, classes: Iterable[Moments]) -> Gaussians:
        means, variances = [], []
        for label, moments in enumerate(classes):
            own = moments.scatter.diagonal() / moments.count
            variances.append(own + self.ridge * own.mean())
            means.append(moments.mean)
            if (variances[-1] <= 0).any():
                raise ValueError(
                    f"a variance of class {label} is 0 over {moments.count} images: {_REMEDY}"
                )
        return Axes(means=torch.stack(means), variances=torch.stack(variances))

    def size(self, classes: int, features: int) -> int:
        return classes * features + features**2


class LedoitWolf:
    """A covariance for each class, shrunk: Σ = (1 − δ) S + δ · tr(S)/d · I, S = scatter / n.

    δ is that of Ledoit and Wolf 2004 as scikit-learn computes it, from the class's own images: near
    1 for fewer images than features, where S itself is singular.
    """

    def __call__(self, classes: Iterable[Moments]) -> Gaussians:
        means, factors = [], []
        for label, moments in enumerate(classes):
            means.append(moments.mean)
            name = f"the covariance of class {label}, of {moments.count} images,"
            factors.append(_factor(shrunk(moments), name))
        return Dense(means=torch.stack(means), factors=torch.stack(factors))

    def size(self, classes: int, features: int) -> int:
        return classes * features**2


def shrunk(moments: Moments) -> Tensor:
    """The shrunk covariance of one class, ``[d, d]``."""
    n, d = moments.count, len(moments.mean)
    empirical = moments.scatter / n
    scale = empirical.trace() / d
    squares = empirical.square().sum()
    # What S has of its own beyond a multiple of I, and how much of that is chance.
    spread = squares / d - scale.square()
    chance = torch.minimum((moments.quartic / n - squares).clamp(min=0) / (n * d), spread)
    delta = chance / spread if spread > 0 else torch.ones_like(spread)
    eye = torch.eye(d).to(empirical)
    return (1 - delta) * empirical + delta * scale * eye


def _checked(ridge: float) -> float:
    if ridge < 0:
        raise ValueError(f"covariance.ridge is {ridge}: give 0 or more")
    return ridge


def _factor(covariance: Tensor, name: str) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    # Rounding can leave a singular matrix just positive, and its inverse to chance.
    least = len(covariance) * torch.finfo(covariance.dtype).eps * covariance.diagonal().max()
    if failed or not factor.diagonal().min().square() > least:
        raise ValueError(f"{name} is singular in {len(covariance)} features: {_REMEDY}")
    return factor
