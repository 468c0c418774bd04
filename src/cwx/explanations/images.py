"""Class images: explanations in the form of images."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cwx.functional.images import Normalization, stretch

# Fraction of the values of a class that the display clips at either end.
DISPLAY_TAIL = 0.01


@dataclass(frozen=True)
class Explanations:
    """Images that explain classes, and the classes that they explain.

    Images are always normalised floats, never bytes: bytes are a `cwx.data.splits.ImageSet`.

    Attributes:
        images: normalised floats ``[n, C, H, W]``; their pixels may lie outside the image range.
        labels: class indices ``[n]``.
        inner_learning_rate: scalar, the learning rate for training on the images; ``None`` unless
            the method learned it.
    """

    images: Tensor
    labels: Tensor
    inner_learning_rate: Tensor | None = None

    def project(self, normalization: Normalization) -> "Explanations":
        """A copy with each image rescaled to fill the image range (`Normalization.project`)."""
        return replace(self, images=normalization.project(self.images))

    def for_display(self, normalization: Normalization) -> "Explanations":
        """The images as displayed: contrast stretched (`stretch_by_class`), in the image range.

        For the eye alone: evaluations read raw or projected images.
        """
        return replace(self, images=stretch_by_class(self.images, self.labels, normalization))

    def of_class(self, label: int) -> Tensor:
        """The images of one class, ``[n_class, C, H, W]``."""
        return self.images[self.labels == label]

    def first(self, per_class: int) -> "Explanations":
        """The first `per_class` images of each class (or fewer), sorted by class."""
        by_class = [(self.labels == c).nonzero()[:per_class, 0] for c in self.labels.unique()]
        indices = torch.cat(by_class)
        return replace(self, images=self.images[indices], labels=self.labels[indices])


def stretch_by_class(images: Tensor, labels: Tensor, normalization: Normalization) -> Tensor:
    """Normalised images ``[n, C, H, W]``, with the range of each class mapped to black and white.

    The central 98 % of the values of a class, over all its images and channels, fill the image
    range; the rest is clipped. Images of one class keep their relative brightness.

    Args:
        images: normalised; values may lie outside the image range.
        labels: the class of each image, ``[n]``.
        normalization: of the images.
    """
    unit = normalization.denormalize(images)
    for label in labels.unique():
        unit[labels == label] = stretch(unit[labels == label], tail=DISPLAY_TAIL)
    return normalization.normalize(unit)
