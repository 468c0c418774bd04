"""Wrong labels for training data (CWX, §6.3).

Labels are int64 class indices ``[n]``; whatever is random comes from an explicit CPU generator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cwx.functional.class_names import class_index


class Noise(Protocol):
    """One kind of label noise."""

    def draw(self, labels: Tensor, classes: Sequence[str], generator: torch.Generator) -> Tensor:
        """What stands in place of the labels ``[k]``, of which some may stay what they are."""


@dataclass(frozen=True, kw_only=True)
class Permuted:
    """Labels are permuted among themselves (CWX, §6.3): a class keeps its number of images."""

    def draw(self, labels: Tensor, classes: Sequence[str], generator: torch.Generator) -> Tensor:
        return labels[torch.randperm(len(labels), generator=generator)]


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Each label is drawn from all classes, the right one too."""

    def draw(self, labels: Tensor, classes: Sequence[str], generator: torch.Generator) -> Tensor:
        return torch.randint(len(classes), labels.shape, generator=generator)


@dataclass(frozen=True, kw_only=True)
class Asymmetric:
    """Each class is mistaken for one other (Patrini et al. 2017, §5).

    Attributes:
        to: what a class is mistaken for, by names or indices; a class that is not there keeps
            its labels. ``None``: each class for the next one, the last for the first.
    """

    to: Mapping[str | int, str | int] | None

    def draw(self, labels: Tensor, classes: Sequence[str], generator: torch.Generator) -> Tensor:
        return self._mistaken(classes)[labels]

    def _mistaken(self, classes: Sequence[str]) -> Tensor:
        own = torch.arange(len(classes))
        if self.to is None:
            return own.roll(-1)
        for right, wrong in self.to.items():
            own[class_index(right, classes)] = class_index(wrong, classes)
        return own
