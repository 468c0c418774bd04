"""The channels of highest influence on one prediction, and the channels until it flips."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.functional.prediction_difference import prediction_differences
from cwx.functional.unit_contributions import Ablation, greedy_removal, logits_without_each

# At most so many channels are removed greedily.
LIMIT = 64


@dataclass(frozen=True, kw_only=True)
class Influence:
    """The channels of highest PD for an image, in descending order.

    Attributes:
        probabilities: of the classes ``[classes]``.
        channels: their indices.
        differences: their PD.
        without: probabilities without each channel ``[channels, classes]``.
        contributions: of each channel to the logits ``[channels, classes]``.
        flip, removed: see `cwx.evaluations.traces.trace.Trace`.
    """

    probabilities: Tensor
    channels: Sequence[int]
    differences: Sequence[float]
    without: Tensor
    contributions: Tensor
    flip: int | None
    removed: int


def influence_of_channels(
    ablation: Ablation, correlation: Tensor, *, count: int | None, threshold: float
) -> Influence:
    """The influence of the units of one image.

    Args:
        ablation: of one image.
        correlation: C, ``[classes, classes]``.
        count: at most so many channels; ``None`` for all above the threshold.
        threshold: they have a PD above it.
    """
    logits = ablation.whole_logits()
    without = logits_without_each(ablation)[0]
    probabilities = logits.softmax(1)[0]
    differences = prediction_differences(probabilities, without.softmax(1), correlation)
    order = differences.argsort(descending=True, stable=True)[:count]
    order = order[differences[order] > threshold]
    steps, flips = greedy_removal(ablation, logits.argmax(1), LIMIT)
    flip = flips.item()
    return Influence(
        probabilities=probabilities.cpu(),
        channels=order.tolist(),
        differences=differences[order].tolist(),
        without=without[order].softmax(1).cpu(),
        contributions=(logits - without[order]).cpu(),
        flip=None if flip == torch.inf else int(flip),
        removed=steps.shape[1],
    )
