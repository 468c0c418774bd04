"""Predictions of networks on many images, which the ranks of a study divide."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet
from cwx.functional.network_loss import NetworkLoss
from cwx.functional.rng import stream
from cwx.networks.eval_mode import correct_counts, device_of
from cwx.networks.finite_logits import finite_logits, predicted
from cwx.training.ranks import Ranks
from cwx.training.subject import Subject


@torch.no_grad()
def divided_logits(subject: Subject, network: nn.Module) -> Tensor:
    """The logits of a network on all test images, ``[t, K]`` on the CPU.

    Args:
        subject: its test images and its ranks, which divide the batches.
        network: in eval mode.
    """
    ranks, device = subject.ranks, device_of(network)

    def compute() -> list[Tensor]:
        batches = subject.data.test_batches(first=ranks.index, step=ranks.count)
        return [finite_logits(network(batch.images.to(device))).cpu() for batch in batches]

    return torch.cat(ranks.interleave(compute))


def divided_accuracy(subject: Subject, network: nn.Module, images: ImageSet) -> float:
    """The fraction in 0-1 of images that `network` classifies correctly, in eval mode.

    Args:
        subject: its ranks divide the batches.
        network: on any device.
    """
    return accuracy_over_ranks(subject.data, network, images, subject.ranks)


def accuracy_over_ranks(
    data: ImageData, network: nn.Module, images: ImageSet, ranks: Ranks
) -> float:
    """As `divided_accuracy`, before there is a subject; collective."""
    batches = data.in_order(images, first=ranks.index, step=ranks.count)
    counts = ranks.collect(partial(correct_counts, network, batches, (1,)))
    total, correct = map(sum, zip(*counts, strict=True))
    return correct / total


@torch.no_grad()
def predicted_classes(
    subject: Subject, loss: NetworkLoss, vector: Tensor, images: ImageSet
) -> Tensor:
    """The classes ``[n]`` that a network predicts, on the CPU; -1 where its logits are not finite.

    Args:
        subject: its normalisation, batch size and device.
        loss: of the kind of network, on this device.
        vector: θ ``[P]``, on this device. Batch norm uses the statistics of each batch, and the
            batches are of random images: sets may be sorted by class, and the statistics of a few
            classes would give other predictions.
        images: n images.
    """
    data = subject.data
    order = torch.randperm(len(images), generator=stream(len(images)))
    logits = [
        loss.logits(vector, data.normalization.from_bytes(batch).to(subject.device)).cpu()
        for batch in images.images[order].split(data.batch_size)
    ]
    return predicted(torch.cat(logits)[order.argsort()])


def matching_fraction(classes: Tensor, other_classes: Tensor) -> float:
    """The fraction in 0-1 of equal classes of two vectors ``[n]``; NaN if a class is -1."""
    if (classes < 0).any() or (other_classes < 0).any():
        return math.nan
    return (classes == other_classes).double().mean().item()
