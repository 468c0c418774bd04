"""What a network makes of test images that carry a pattern or a perturbation."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwx.data.splits import ImageSet
from cwx.evaluations.patterns.metric import PredictivePowerMetric
from cwx.explanations.patterns import Attach
from cwx.training.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What a network makes of images, in their order.

    Attributes:
        predicted: classes ``[n]``.
        loss: −log f_y of the target class y, ``[n]`` in float64.
    """

    predicted: Tensor
    loss: Tensor


class Probe:
    """Test images that carry what is attached to them, before one network.

    Args:
        network: frozen, in eval mode.
        images: byte images that attachments go to, and their labels.
    """

    def __init__(self, subject: Subject, network: nn.Module, images: ImageSet) -> None:
        self.subject, self.images = subject, images
        # Nothing but forward passes, which take half of the time in this format on a CPU.
        network.to(memory_format=torch.channels_last)
        self.network = network.to(subject.device)
        self.clean = self._reach(None, 0).predicted

    def _unit(self, chosen: Tensor) -> Iterator[Tensor]:
        for indices in chosen.nonzero()[:, 0].split(self.subject.data.batch_size):
            yield self.images.images[indices].to(self.subject.device).float() / 255

    @torch.no_grad()
    def _reach(self, attach: Attach | None, target: int, chosen: Tensor | None = None) -> Reached:
        every = torch.ones(len(self.images), dtype=torch.bool)
        predicted, losses = [], []
        for unit in self._unit(every if chosen is None else chosen):
            carrying = unit if attach is None else attach(unit)
            logits = self.network(self.subject.data.normalization.normalize(carrying))
            aims = torch.full((len(logits),), target, device=logits.device)
            predicted.append(logits.argmax(1).cpu())
            losses.append(F.cross_entropy(logits, aims, reduction="none").double().cpu())
        return Reached(predicted=torch.cat(predicted), loss=torch.cat(losses))

    def others(self, attach: Attach, target: int) -> Reached:
        """All images; what is said of the target's own is the clean prediction, and no loss."""
        other = self.images.labels != target
        found = self._reach(attach, target, other)
        predicted, loss = self.clean.clone(), torch.zeros(len(other), dtype=torch.float64)
        predicted[other], loss[other] = found.predicted, found.loss
        return Reached(predicted=predicted, loss=loss)

    def power(self, found: Reached, target: int, among: Tensor) -> PredictivePowerMetric:
        """The power over those images that the boolean mask `among` ``[n]`` mark."""
        # Rank 0 alone evaluates, and has all images.
        metric = PredictivePowerMetric(target=target, sync_on_compute=False)
        metric.update(found.predicted[among], self.clean[among], self.images.labels[among])
        return metric
