"""Images of each class: while a method shapes them, and as it hands them over."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cwx.functional.images import Normalization


@dataclass(frozen=True)
class Explanations:
    """What a method leaves.

    Attributes:
        images: normalised, ``[n, C, H, W]``, as the method left them.
        labels: ``[n]``.
        inner_learning_rate: a scalar, the rate to train on the images with, if it was learned with them.
    """

    images: Tensor
    labels: Tensor
    inner_learning_rate: Tensor | None = None

    def projected(self, normalization: Normalization) -> "Explanations":
        """The same, each image rescaled to fill the image range."""
        return replace(self, images=normalization.project(self.images))

    def shown(self, normalization: Normalization) -> "Explanations":
        """As for people: within the image range."""
        return self.projected(normalization)

    def of(self, label: int) -> Tensor:
        """The images of one class, ``[n_class, C, H, W]``."""
        return self.images[self.labels == label]

    def first(self, per_class: int) -> "Explanations":
        """At most `per_class` images of each class, ordered by class."""
        chosen = [(self.labels == c).nonzero()[:per_class, 0] for c in self.labels.unique()]
        indices = torch.cat(chosen)
        return replace(self, images=self.images[indices], labels=self.labels[indices])
