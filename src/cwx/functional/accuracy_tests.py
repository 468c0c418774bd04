"""Exact tests of accuracies: is one at chance, is one higher than another on the same images."""

import math

from torch import Tensor


def binomial_at_least(hits: int, trials: int, probability: float) -> float:
    """P(X ≥ hits) for X ~ Binomial(trials, probability).

    >>> binomial_at_least(2, 2, 0.5)
    0.25
    """
    if hits <= 0:
        return 1.0
    if hits > trials or probability <= 0:
        return 0.0
    if probability >= 1:
        return 1.0
    odds = math.log(probability), math.log1p(-probability)
    # Logarithms: the binomial coefficients of a thousand trials exceed a float.
    logs = [
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * odds[0]
        + (trials - k) * odds[1]
        for k in range(hits, trials + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, logs)))


def binomial_at_most(hits: int, trials: int, probability: float) -> float:
    """P(X ≤ hits) for X ~ Binomial(trials, probability)."""
    return binomial_at_least(trials - hits, trials, 1 - probability)


def sign_test(first: Tensor, second: Tensor) -> float:
    """P value of the exact sign test that `second` is correct more often than `first`.

    Images that both classify correctly, or both wrongly, say nothing; of the others each would be
    gained or lost with probability 1/2 if both were equally good (McNemar's exact test).

    Args:
        first, second: boolean masks ``[n]`` of the images that each classifies correctly.

    >>> import torch
    >>> sign_test(torch.tensor([False, False, True]), torch.tensor([True, True, True]))
    0.25
    """
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return binomial_at_least(gained, gained + lost, 0.5)


def chance_accuracy(predictions: Tensor, labels: Tensor, classes: int) -> float:
    """The accuracy in 0-1 of predictions with these frequencies that ignore the image.

    Σ_c p_c q_c with p the frequencies of the labels and q those of the predictions, and at least
    1 / classes. A network that predicts one class for all images is at chance, however frequent
    this class is.

    Args:
        predictions, labels: class indices ``[n]``, n ≥ 1.
    """
    if len(labels.unique()) == 1:
        # Every prediction agrees with the only label as often as it is made.
        return 1 / classes
    p = labels.bincount(minlength=classes).double() / len(labels)
    q = predictions.bincount(minlength=classes).double() / len(labels)
    return max(1 / classes, float((p * q).sum()))


# A network that is above chance by this fraction of the way to 1 is not at chance.
_WAY = 0.25
_ERROR = 0.01


def is_at_chance(predictions: Tensor, labels: Tensor, classes: int) -> bool:
    """Whether these predictions are no better than chance, as far as so many images can tell.

    The accuracy is not significantly above chance (p > 0.01), and significantly below (p < 0.01)
    that of a network a quarter of the way from chance to 1: with few images neither is known, and
    the result is False.

    Args:
        predictions, labels: class indices ``[n]``.
    """
    if not len(labels):
        return False
    chance = chance_accuracy(predictions, labels, classes)
    hits, trials = int((predictions == labels).sum()), len(labels)
    useful = chance + _WAY * (1 - chance)
    return (
        binomial_at_least(hits, trials, chance) > _ERROR
        and binomial_at_most(hits, trials, useful) < _ERROR
    )


def chance_needs(classes: int) -> int:
    """The number of images from which a network of accuracy 1 / classes is known as at chance."""
    chance = 1 / classes
    useful = chance + _WAY * (1 - chance)
    trials = 1
    while binomial_at_most(math.floor(chance * trials), trials, useful) >= _ERROR:
        trials += 1
    return trials
