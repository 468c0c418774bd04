"""The channels of highest influence on one prediction, and their top images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cwx.evaluations.neurons.top_images import Activation, normalized_batches, top_of_units
from cwx.functional.prediction_difference import prediction_differences
from cwx.functional.unit_contributions import Ablation, greedy_removal, logits_without_each
from cwx.networks.finite_logits import finite_logits
from cwx.networks.unit_layers import UnitLayer
from cwx.training.subject import Subject

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
    logits = finite_logits(ablation.whole_logits())
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


def strongest_images(
    network: nn.Module,
    layer: UnitLayer,
    channels: Sequence[int],
    subject: Subject,
    *,
    activation: Activation,
    fraction: float,
) -> Mapping[int, Tensor]:
    """Indices of the top test images that each channel fires on, from one pass over all.

    Args:
        network: in eval mode.
        layer: of the channels.
        channels: their indices.
        subject: its ranks divide the batches of test images.
        activation: from the channels' maps to activations ``[n, channels]``.
        fraction: top images of a channel as a fraction of the test images; at least one.
    """
    if not channels:
        return {}
    data, ranks, device = subject.data, subject.ranks, next(network.parameters()).device
    test, columns = data.splits.test, list(channels)

    def read(maps: Tensor) -> Tensor:
        return activation(maps[:, columns])

    batches = normalized_batches(
        [test.images], data.normalization, size=data.batch_size, device=device, ranks=ranks
    )
    k = max(1, round(fraction * len(test)))
    tops, _ = top_of_units(network, [layer], read, batches, k, ranks)
    top = tops[layer.name]
    by_channel = zip(channels, top.indices.T, top.responding.T, strict=True)
    return {channel: of_channel[fires] for channel, of_channel, fires in by_channel}
