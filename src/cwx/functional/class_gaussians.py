"""Class-conditional Gaussians on representations (Dong et al., §2.4).

    p(φ(x) | y = i) = N(μ_i, Σ_i)

Means and covariances are maximum likelihood estimates, from moments that are summed batch by batch
in float64. `Tied`, `PerClass`, `Diagonal` and `LedoitWolf` are models of Σ_i.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

_REMEDY = "give a larger ridge, choose the covariance ledoit_wolf, or fit to more images"


@dataclass(frozen=True, kw_only=True)
class Moments:
    """The moments of a class, in float64.

    Attributes:
        count: n, the number of images.
        mean: μ, ``[d]``.
        scatter: Σ_k (x_k − μ)(x_k − μ)ᵀ, ``[d, d]``.
        quartic: Σ_k ‖x_k − μ‖⁴, a scalar, for the coefficient of Ledoit and Wolf.
    """

    count: int
    mean: Tensor
    scatter: Tensor
    quartic: Tensor


class RunningMoments:
    """Accumulates the `Moments` of a class over batches; memory O(d²), for any number of images."""

    def __init__(self) -> None:
        self._count = 0

    def update(self, features: Tensor) -> None:
        """Add a batch ``[b, d]``."""
        if not len(features):
            return
        features = features.double()
        if not self._count:
            # Sums of powers are more accurate about a point near the mean.
            self._origin = features.mean(0)
            size = len(self._origin)
            self._sum, self._weighted = self._origin.new_zeros((2, size))
            self._products = self._origin.new_zeros((size, size))
            self._squares = self._origin.new_zeros(())
        centred = features - self._origin
        squared_norms = centred.square().sum(1)
        self._count += len(centred)
        self._sum += centred.sum(0)
        self._products += centred.T @ centred
        self._weighted += squared_norms @ centred
        self._squares += squared_norms.square().sum()

    def moments(self) -> Moments:
        """The moments of all batches.

        Raises:
            ValueError: there were no images.
        """
        if not self._count:
            raise ValueError("a class has no images to fit a Gaussian to: leave it out of the data")
        n, mean = self._count, self._sum / self._count
        length = mean @ mean
        # Σ (‖z‖² − 2 zᵀm + ‖m‖²)² with z the points and m their mean, both relative to _origin.
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
    """One Gaussian per class."""

    def log_prob(self, features: Tensor, classes: Tensor) -> Tensor:
        """log p(φ | class) ``[b]`` in float64, of features ``[b, d]`` and their classes ``[b]``."""


class Covariance(Protocol):
    """A model of the class covariances."""

    def __call__(self, classes: Iterable[Moments]) -> Gaussians:
        """The Gaussians, in the order of `classes`.

        Raises:
            ValueError: a covariance is singular; with the remedy.
        """

    def size(self, classes: int, features: int) -> int:
        """The number of float64 values that the fit holds in memory."""


@dataclass(frozen=True, kw_only=True)
class FullGaussians:
    """Gaussians with full covariances, as Cholesky factors.

    Attributes:
        means: ``[classes, d]``.
        factors: L with Σ = L Lᵀ, ``[classes, d, d]``, or ``[1, d, d]`` for a shared covariance.
    """

    means: Tensor
    factors: Tensor

    def log_prob(self, features: Tensor, classes: Tensor) -> Tensor:
        residuals = features.double() - self.means[classes]
        shared = len(self.factors) == 1
        factor_indices = torch.zeros_like(classes) if shared else classes
        squared_norms = residuals.new_empty(len(residuals))
        for index in factor_indices.unique().tolist():
            rows = factor_indices == index
            white = torch.linalg.solve_triangular(
                self.factors[index], residuals[rows].T, upper=False
            )
            squared_norms[rows] = white.square().sum(0)
        half_log_det = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = residuals.shape[1] * math.log(2 * math.pi)
        return -(squared_norms + constant) / 2 - half_log_det[factor_indices]


@dataclass(frozen=True, kw_only=True)
class DiagonalGaussians:
    """Gaussians with diagonal covariances: `means` and `variances` ``[classes, d]``."""

    means: Tensor
    variances: Tensor

    def log_prob(self, features: Tensor, classes: Tensor) -> Tensor:
        variances = self.variances[classes]
        squares = (features.double() - self.means[classes]).square() / variances
        return -(squares + (2 * math.pi * variances).log()).sum(1) / 2


class Tied:
    """One covariance for all classes: Σ = 1/N Σ_c scatter_c + ridge · v · I, v the mean variance.

    Raises:
        ValueError: the ridge is negative.
    """

    def __init__(self, *, ridge: Annotated[float, ">= 0"]) -> None:
        self.ridge = _checked_ridge(ridge)

    def __call__(self, classes: Iterable[Moments]) -> Gaussians:
        means, count, scatter = [], 0, torch.zeros(())
        for moments in classes:
            means.append(moments.mean)
            count += moments.count
            scatter = scatter.to(moments.scatter) + moments.scatter
        covariance = _with_ridge(scatter / count, self.ridge)
        factor = _cholesky(covariance, "the covariance that all classes share")
        return FullGaussians(means=torch.stack(means), factors=factor[None])

    def size(self, classes: int, features: int) -> int:
        return features**2


class PerClass:
    """A full covariance per class: Σ = scatter / n + ridge · v · I, v the mean variance (§2.4).

    Without a ridge it is the maximum likelihood estimate, which is singular for fewer images of a
    class than features, and for an inactive feature.

    Raises:
        ValueError: the ridge is negative.
    """

    def __init__(self, *, ridge: Annotated[float, ">= 0"]) -> None:
        self.ridge = _checked_ridge(ridge)

    def __call__(self, classes: Iterable[Moments]) -> Gaussians:
        return _gaussians(
            classes, lambda of_class: _with_ridge(of_class.scatter / of_class.count, self.ridge)
        )

    def size(self, classes: int, features: int) -> int:
        return classes * features**2


class Diagonal:
    """A diagonal covariance per class: the diagonal of scatter / n, plus ridge · its mean.

    Raises:
        ValueError: the ridge is negative.
    """

    def __init__(self, *, ridge: Annotated[float, ">= 0"]) -> None:
        self.ridge = _checked_ridge(ridge)

    def __call__(self, classes: Iterable[Moments]) -> Gaussians:
        means, variances = [], []
        for label, moments in enumerate(classes):
            diagonal = moments.scatter.diagonal() / moments.count
            variances.append(diagonal + self.ridge * diagonal.mean())
            means.append(moments.mean)
            if (variances[-1] <= 0).any():
                raise ValueError(
                    f"a variance of class {label} is 0 over {moments.count} images: {_REMEDY}"
                )
        return DiagonalGaussians(means=torch.stack(means), variances=torch.stack(variances))

    def size(self, classes: int, features: int) -> int:
        return classes * features + features**2


class LedoitWolf:
    """A shrinkage covariance per class: Σ = (1 − δ) S + δ · tr(S)/d · I, S = scatter / n.

    δ is the coefficient of Ledoit and Wolf 2004, as in scikit-learn, from the images of the class.
    It is near 1 for fewer images than features, where S is singular.
    """

    def __call__(self, classes: Iterable[Moments]) -> Gaussians:
        return _gaussians(classes, ledoit_wolf_covariance)

    def size(self, classes: int, features: int) -> int:
        return classes * features**2


def ledoit_wolf_covariance(moments: Moments) -> Tensor:
    """The shrinkage covariance of one class, ``[d, d]``; see `LedoitWolf`."""
    n, d = moments.count, len(moments.mean)
    empirical = moments.scatter / n
    scale = empirical.trace() / d
    squares = empirical.square().sum()
    # Squared distance of S from the multiple of I, and the part of it due to sampling noise.
    spread = squares / d - scale.square()
    noise = torch.minimum((moments.quartic / n - squares).clamp(min=0) / (n * d), spread)
    delta = noise / spread if spread > 0 else torch.ones_like(spread)
    eye = torch.eye(d).to(empirical)
    return (1 - delta) * empirical + delta * scale * eye


def _gaussians(
    classes: Iterable[Moments], covariance: Callable[[Moments], Tensor]
) -> FullGaussians:
    """Gaussians with a full covariance of each class."""
    means, factors = [], []
    for label, moments in enumerate(classes):
        means.append(moments.mean)
        name = f"the covariance of class {label}, of {moments.count} images,"
        factors.append(_cholesky(covariance(moments), name))
    return FullGaussians(means=torch.stack(means), factors=torch.stack(factors))


def _with_ridge(covariance: Tensor, ridge: float) -> Tensor:
    """The covariance, changed in place: its mean variance times `ridge` on the diagonal."""
    covariance.diagonal().add_(ridge * covariance.diagonal().mean())
    return covariance


def _checked_ridge(ridge: float) -> float:
    if ridge < 0:
        raise ValueError(f"covariance.ridge is {ridge}: give 0 or more")
    return ridge


def _cholesky(covariance: Tensor, name: str) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    # Rounding can make a singular matrix slightly positive; its inverse would be arbitrary.
    minimum = len(covariance) * torch.finfo(covariance.dtype).eps * covariance.diagonal().max()
    if failed or not factor.diagonal().min().square() > minimum:
        raise ValueError(f"{name} is singular in {len(covariance)} features: {_REMEDY}")
    return factor
