"""Pruning of the neurons that a trigger activates (Wang et al. 2019, Neural Cleanse §VI-B).

A neuron is an input of the network's output layer; a pruned neuron is 0 for every image.
"""

import torch
from torch import Tensor


def pruning_order(clean: Tensor, triggered: Tensor) -> Tensor:
    """The neurons, those first whose activation the trigger increases most, ``[d]`` indices.

    Args:
        clean: activations of images without the trigger, ``[n, d]``.
        triggered: of the same images with the trigger, ``[n, d]``.
    """
    gap = (triggered.double() - clean.double()).mean(0)
    return gap.argsort(descending=True, stable=True)


@torch.no_grad()
def success_by_count(
    triggered: Tensor, weight: Tensor, bias: Tensor | None, order: Tensor, label: int, count: int
) -> Tensor:
    """The success of a trigger after the first 0 to `count` neurons are pruned, ``[count + 1]``.

    Args:
        triggered: activations of images with the trigger, ``[n, d]``.
        weight: of the output layer, ``[K, d]``.
        bias: of the output layer, ``[K]``, or ``None``.
        order: of the neurons, ``[d]``.
        label: the class of the trigger.
        count: the largest number of pruned neurons, at most d.
    """
    activations, columns = triggered.double(), weight.double()
    logits = activations @ columns.T
    if bias is not None:
        logits = logits + bias.double()
    rates = [(logits.argmax(1) == label).double().mean()]
    for neuron in order[:count].tolist():
        logits = logits - activations[:, neuron, None] * columns[:, neuron]
        rates.append((logits.argmax(1) == label).double().mean())
    return torch.stack(rates)


def smallest_sufficient(rates: Tensor, limit: float) -> int:
    """The smallest number of pruned neurons with a success of at most `limit`.

    If no number suffices, the smallest number with the least success.

    Args:
        rates: `success_by_count`, ``[m]``.
    """
    sufficient = (rates <= limit).nonzero()
    return int(sufficient[0] if len(sufficient) else (rates == rates.min()).nonzero()[0])
