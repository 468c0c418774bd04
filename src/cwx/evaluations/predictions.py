"""Predictions of networks given by their parameter vector."""

import torch
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.functional.network_loss import NetworkLoss
from cwx.training.subject import Subject


@torch.no_grad()
def predicted_classes(
    subject: Subject, loss: NetworkLoss, vector: Tensor, images: ImageSet
) -> Tensor:
    """The classes ``[n]`` that a network predicts, on the CPU.

    Args:
        subject: its normalisation, batch size and device.
        loss: of the kind of network, on this device.
        vector: θ ``[P]``, on this device. Batch norm uses the statistics of each batch.
        images: n images.
    """
    data = subject.data
    logits = [
        loss.logits(vector, data.normalization.from_bytes(batch).to(subject.device)).cpu()
        for batch in images.images.split(data.batch_size)
    ]
    return torch.cat(logits).argmax(1)


def matching_fraction(classes: Tensor, other_classes: Tensor) -> float:
    """The fraction in 0-1 of equal classes of two vectors ``[n]``."""
    return (classes == other_classes).double().mean().item()
