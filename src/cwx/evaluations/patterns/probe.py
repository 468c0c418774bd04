"""Predictions of a network on test images that carry a pattern or a perturbation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwx.data.splits import ImageSet
from cwx.evaluations.patterns.metric import PredictivePowerMetric
from cwx.explanations.patterns import Attach
from cwx.networks.finite_logits import finite_logits
from cwx.training.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of a network on images, in their order.

    Attributes:
        classes: predicted classes ``[n]``.
        loss: −log f_y of the target class y, ``[n]`` in float64.
    """

    classes: Tensor
    loss: Tensor


@runtime_checkable
class DrawsForBatches(Protocol):
    """What draws random numbers for each batch of images, in their order."""

    def skip(self, shape: Sequence[int]) -> None:
        """Draw for a batch of this shape that another rank changes."""


class Probe:
    """Attaches patterns or perturbations to test images and evaluates one network on them.

    The ranks of the subject divide the batches of images.

    Args:
        subject: gives normalisation, batch size, device and ranks.
        network: frozen, in eval mode; moves to the subject's device.
        images: byte images to attach to, and their labels.
    """

    def __init__(self, subject: Subject, network: nn.Module, images: ImageSet) -> None:
        self.subject, self.images = subject, images
        # There are forward passes only; channels_last halves their time on a CPU.
        network.to(memory_format=torch.channels_last)
        self.network = network.to(subject.device)
        self.clean = self._predict(images, None, 0).classes

    def _predict(
        self, images: ImageSet, attach: Attach | None, target: int, mask: Tensor | None = None
    ) -> Predictions:
        """Predictions on the images that `mask` marks; ``None`` for all."""
        marked = torch.ones(len(images), dtype=torch.bool) if mask is None else mask
        batches = marked.nonzero()[:, 0].split(self.subject.data.batch_size)
        ranks = self.subject.ranks

        def compute() -> list[tuple[Tensor, Tensor]]:
            own = []
            for number, indices in enumerate(batches):
                if ranks.has(number):
                    own.append(self._predict_batch(images, attach, target, indices))
                elif isinstance(attach, DrawsForBatches):
                    attach.skip((len(indices), *images.images.shape[1:]))
            return own

        predictions = ranks.interleave(compute)
        classes, losses = zip(*predictions, strict=True)
        return Predictions(classes=torch.cat(classes), loss=torch.cat(losses))

    @torch.no_grad()
    def _predict_batch(
        self, images: ImageSet, attach: Attach | None, target: int, indices: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The classes of the images with these indices, and their losses."""
        unit = images.images[indices].to(self.subject.device).float() / 255
        carrying = unit if attach is None else attach(unit)
        logits = finite_logits(self.network(self.subject.data.normalization.normalize(carrying)))
        targets = torch.full((len(logits),), target, device=logits.device)
        losses = F.cross_entropy(logits, targets, reduction="none")
        return logits.argmax(1).cpu(), losses.double().cpu()

    @torch.no_grad()
    def classify(self, unit: Tensor) -> Tensor:
        """The predicted classes ``[n]`` of unit images ``[n, C, H, W]``."""
        images = self.subject.data.normalization.normalize(unit.to(self.subject.device))
        return finite_logits(self.network(images)).argmax(1).cpu()

    def predict(self, attach: Attach, target: int) -> Predictions:
        """Predictions on all images, attached to those of other classes than `target`.

        Images of the target class have their clean prediction and a loss of 0.
        """
        mask = self.images.labels != target
        attached = self._predict(self.images, attach, target, mask)
        classes, loss = self.clean.clone(), torch.zeros(len(mask), dtype=torch.float64)
        classes[mask], loss[mask] = attached.classes, attached.loss
        return Predictions(classes=classes, loss=loss)

    def predict_classes(self, attach: Attach) -> Tensor:
        """Predicted classes ``[n]`` of all images, attached to all of them."""
        return self._predict(self.images, attach, 0).classes

    def mean_loss(self, images: ImageSet, attach: Attach, target: int) -> float:
        """The mean loss on other images than the probe's, which are of other classes."""
        return self._predict(images, attach, target).loss.mean().item()

    def hits(self, attach: Attach, target: int) -> Tensor:
        """Whether each image of another class is classified as `target`, boolean ``[m]``."""
        others = self.images.labels != target
        return self.predict(attach, target).classes[others] == target

    def power(self, predictions: Predictions, target: int, others: Tensor) -> PredictivePowerMetric:
        """The metric over images of other classes, and over all images of the target class.

        Args:
            predictions: on all images.
            target: the class.
            others: boolean mask ``[n]``, the images of other classes to count.
        """
        mask = others | (self.images.labels == target)
        # Every rank has the predictions on all images.
        metric = PredictivePowerMetric(target=target, sync_on_compute=False)
        metric.update(predictions.classes[mask], self.clean[mask], self.images.labels[mask])
        return metric
