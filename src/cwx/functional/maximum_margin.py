"""The maximum margin statistic of a class, and MM-BD's decision rule (Wang et al. 2024).

MM-BD (Wang, Xiang, Miller, Kesidis: *MM-BD: Post-Training Detection of Backdoor Attacks with
Arbitrary Backdoor Pattern Types Using a Maximum Margin Statistic*, IEEE S&P 2024) needs no images:
a backdoor raises the largest margin that any image can reach for its target class.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cwx.functional.images import Normalization

# The published rule rejects "no backdoor" at this p-value or below.
MAXIMUM_MARGIN_LEVEL = 0.05
# Newton's method for the shape of a Gamma law takes about five steps in float64.
_NEWTON_STEPS = 50


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """f_y(x) − max_{j≠y} f_j(x), the margin of each image's label ``[n]``, in logits.

    Args:
        logits: ``[n, K]`` of K ≥ 2 classes.
        labels: ``[n]``.

    >>> margins(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([1.])
    """
    columns = labels[:, None]
    others = logits.scatter(1, columns, -torch.inf).amax(1)
    return logits.gather(1, columns)[:, 0] - others


def margin_gradients(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    normalization: Normalization,
) -> tuple[Tensor, Tensor]:
    """The gradient of each image's negative margin by its pixels, and these losses ``[n]``.

    All images run through the network as one batch, so the network must be in eval mode, where
    images do not influence each other. Its parameters get no gradients.

    Args:
        network: from normalised images ``[n, C, H, W]`` to logits.
        images: unit, ``[n, C, H, W]``.
        labels: the class whose margin is maximised, ``[n]``.
        normalization: of the network's input.
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        losses = -margins(network(normalization.normalize(leaf)), labels)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return gradient, losses.detach()


def median_margin(logits: Tensor, labels: Tensor) -> float:
    """The median margin of images, in logits: a scale to divide the statistics of a network by.

    It is 0 or less if the network classifies half of the images wrongly.

    Args:
        logits: of clean test images ``[n, K]``.
        labels: their classes ``[n]``.

    Raises:
        ValueError: there are no images.
    """
    if not len(labels):
        raise ValueError("the median margin needs test images, and there are none")
    ordered = margins(logits, labels).double().sort().values
    middle = (len(ordered) - 1) // 2, len(ordered) // 2
    return float(ordered[list(middle)].mean())


class GammaLaw(NamedTuple):
    """A Gamma law on the positive numbers, with location 0.

    Attributes:
        shape: a.
        scale: θ; the mean is aθ.
    """

    shape: float
    scale: float

    def survival(self, value: float) -> float:
        """P(X > value)."""
        shape, quotient = torch.tensor([self.shape, max(value, 0) / self.scale]).double()
        return float(torch.special.gammaincc(shape, quotient))


def fit_gamma(values: Tensor) -> GammaLaw:
    """The Gamma law of highest likelihood, by Newton's method for its shape.

        log a − ψ(a) = log(mean x) − mean(log x),        θ = mean x / a

    Args:
        values: ``[n]``, above 0 and not all equal.

    Raises:
        ValueError: a value is not finite or not above 0, or all are equal.
    """
    values = values.double()
    if not (values.isfinite() & (values > 0)).all():
        raise ValueError(f"a Gamma law has finite values above 0, not {values.min().item():g}")
    gap = values.mean().log() - values.log().mean()
    if not gap > torch.finfo(gap.dtype).eps:
        raise ValueError(f"no Gamma law fits {len(values)} equal values")
    shape = (3 - gap + ((gap - 3).square() + 24 * gap).sqrt()) / (12 * gap)
    for _ in range(_NEWTON_STEPS):
        residual = shape.log() - torch.special.digamma(shape) - gap
        # Newton's method for 1/a, which converges from this start (Minka 2002).
        slope = shape - shape.square() * torch.special.polygamma(1, shape)
        following = 1 / (1 / shape + residual / slope)
        converged = (following - shape).abs() <= 1e-12 * shape
        shape = following
        if converged:
            break
    return GammaLaw(shape.item(), (values.mean() / shape).item())


class MaximumMarginTest(NamedTuple):
    """The decision of MM-BD.

    Attributes:
        label: the class of the largest statistic.
        p_value: of that statistic, in 0-1.
        rejected: whether the rule reports a backdoor with the target `label`.
    """

    label: int
    p_value: float
    rejected: bool


def maximum_margin_test(statistics: Tensor) -> MaximumMarginTest:
    """The published rule of MM-BD: the largest statistic against a Gamma law of all others.

        p = 1 − F(max)^K        backdoor if p ≤ 0.05

    F is fitted to the K − 1 smaller statistics. The released code fits a location as well, by a
    local search; here the location is 0 and the fit exact. The rule reports many clean networks:
    the fit leaves out the largest of K values, and a class may be the largest by nature. It is for
    comparison, no evidence.

    Args:
        statistics: the largest margin of each class, ``[K]``, above 0; K ≥ 4.

    Raises:
        ValueError: there are fewer than 4 classes, a margin is not finite, or no Gamma law fits.
    """
    count = len(statistics)
    if count < 4:
        raise ValueError(f"the rule of MM-BD needs 4 classes or more, and there are {count}")
    if not statistics.isfinite().all():
        raise ValueError(f"the rule of MM-BD needs finite margins, not {statistics.tolist()}")
    label = int(statistics.argmax())
    others = torch.cat([statistics[:label], statistics[label + 1 :]])
    survival = torch.tensor(fit_gamma(others).survival(statistics[label].item())).double()
    # 1 − (1 − s)^K without cancellation for small s.
    p_value = -torch.expm1(count * torch.log1p(-survival)).item()
    return MaximumMarginTest(label, p_value, p_value <= MAXIMUM_MARGIN_LEVEL)
