"""Comparison of a network with a bank of clean networks, by several statistics of every class.

A statistic is a number for each class, high where the class is suspicious. Its value without a
backdoor differs between classes, and a network has many classes and statistics, so that thresholds
within one network flag many clean ones. Among networks of the same data, architecture and recipe,
the ranks of one number per network are exact.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# A normal law's standard deviation over its median and its mean absolute deviation.
_MEDIAN_DEVIATION, _MEAN_DEVIATION = 1.4826, 1.2533
# Fewer clean networks can never give p ≤ 0.05.
SMALLEST_BANK = 19


class BankComparison(NamedTuple):
    """The result of `compare_with_bank`.

    Attributes:
        p: the fraction of the m + 1 networks that are at least as extreme as the suspect, in
            1/(m + 1) to 1.
        excess: of the suspect, by statistic and class ``[S, K]``: the deviation from the median of
            the class, in pooled deviations of the statistic.
        bank_excess: the same of the bank ``[m, S, K]``.
        scores: the score of the suspect by statistic, ``[S]``: its largest excess over the classes,
            in deviations from the median of all networks.
        classes: the class of the largest excess, by statistic, ``[S]``.
        score: the largest of `scores`.
        bank_scores: the same of the bank, ``[m]``.
        statistic: the index of the largest of `scores`.
        label: the class of the largest excess of that statistic.
    """

    p: float
    excess: Tensor
    bank_excess: Tensor
    scores: Tensor
    classes: Tensor
    score: float
    bank_scores: Tensor
    statistic: int
    label: int


def compare_with_bank(suspect: Tensor, bank: Tensor) -> BankComparison:
    """Rank a network among a bank of clean networks.

    1. For each statistic and class, subtract the median over the m + 1 networks.
    2. Divide by the statistic's median absolute deviation over networks and classes.
    3. Take the largest value over classes; standardise it over the networks in the same way.
    4. Take the largest value over statistics, and rank the suspect by it.

    All steps treat the m + 1 networks alike, so that for a clean suspect all ranks are equally
    likely: P(p ≤ α) ≤ α for every m, any number of classes and statistics, and any dependence
    between them.

    Args:
        suspect: ``[S, K]`` of S statistics and K classes; NaN where a statistic is not measured.
        bank: ``[m, S, K]``, NaN in the same places.

    Raises:
        ValueError: the bank is empty, its shape is another, a value is infinite, a statistic has no
            values, or the places of NaN differ.
    """
    if bank.ndim != 3 or not len(bank) or bank.shape[1:] != suspect.shape:
        raise ValueError(
            f"statistics {list(suspect.shape)} of the suspect do not match those of the bank, "
            f"{list(bank.shape)}"
        )
    values = torch.cat([suspect[None], bank]).double()
    missing = values.isnan()
    if values.isinf().any() or (missing != missing[0]).any() or missing[0].all(1).any():
        raise ValueError("the networks do not have the same finite statistics")
    centred = values - _median(values, 0)
    excess = (
        centred / torch.stack([_deviation(centred[:, s]) for s in range(centred.shape[1])])[:, None]
    )
    largest, classes = excess.nan_to_num(nan=-torch.inf).max(2)
    tops = largest - _median(largest, 0)
    scores = tops / torch.stack([_deviation(tops[:, s]) for s in range(tops.shape[1])])
    score, statistics = scores.max(1)
    statistic = int(statistics[0])
    return BankComparison(
        p=(score >= score[0]).double().mean().item(),
        excess=excess[0],
        bank_excess=excess[1:],
        scores=scores[0],
        classes=classes[0],
        score=score[0].item(),
        bank_scores=score[1:],
        statistic=statistic,
        label=int(classes[0, statistic]),
    )


def within_network(values: Tensor) -> Tensor:
    """Deviations of each class from the median class of the same network, ``[S, K]``.

    In median absolute deviations over the classes. They rank the classes and have no known error
    rate.

    Args:
        values: ``[S, K]``; NaN where a statistic is not measured.
    """
    centred = values.double() - _median(values.double(), 1)[:, None]
    return centred / torch.stack([_deviation(row) for row in centred])[:, None]


def _median(values: Tensor, dim: int) -> Tensor:
    """The mean of the lower and the upper median, which has no direction; NaN is left out."""
    # torch.nanmedian returns arbitrary numbers for expanded tensors.
    values = values.contiguous()
    lower, upper = values.nanmedian(dim).values, -(-values).nanmedian(dim).values
    return (lower + upper) / 2


def _deviation(centred: Tensor) -> Tensor:
    """A robust standard deviation of values around 0; 1 if all are 0.

    If more than half of the values are 0, as rates of success can be, the mean absolute deviation
    replaces the median one.
    """
    sizes = centred.abs().flatten()
    median = _MEDIAN_DEVIATION * _median(sizes, 0)
    if median > 0:
        return median
    mean = _MEAN_DEVIATION * sizes.nanmean()
    return mean if mean > 0 else torch.ones_like(mean)
