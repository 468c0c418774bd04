"""Label noise for training data (CWX, §6.3).

Labels are int64 class indices ``[n]``; all randomness comes from an explicit CPU generator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cwx.functional.class_names import ClassName, class_index, class_indices, describe_class


class Noise(Protocol):
    """One kind of label noise."""

    def draw(self, labels: Tensor, classes: Sequence[str], generator: torch.Generator) -> Tensor:
        """The noisy labels ``[k]`` that replace `labels` ``[k]``; some may be the same."""


@dataclass(frozen=True, kw_only=True)
class Permuted:
    """Permutes the labels (CWX, §6.3): each class keeps its number of images."""

    def draw(self, labels: Tensor, classes: Sequence[str], generator: torch.Generator) -> Tensor:
        return labels[torch.randperm(len(labels), generator=generator)]


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Draws each label uniformly from all classes, including the correct one."""

    def draw(self, labels: Tensor, classes: Sequence[str], generator: torch.Generator) -> Tensor:
        return torch.randint(len(classes), labels.shape, generator=generator)


@dataclass(frozen=True, kw_only=True)
class Asymmetric:
    """Replaces each class by one other class (Patrini et al. 2017, §5).

    Attributes:
        to: the class that replaces each class, by names or indices; classes that are not keys
            keep their labels. ``None``: each class becomes the next one, the last the first.

    Raises:
        ValueError: when called: a class does not exist, is replaced twice, or by itself.
    """

    to: Mapping[ClassName, ClassName] | None

    def draw(self, labels: Tensor, classes: Sequence[str], generator: torch.Generator) -> Tensor:
        return self.noisy_labels(classes)[labels]

    def noisy_labels(self, classes: Sequence[str]) -> Tensor:
        """The new label of each class ``[classes]``."""
        noisy = torch.arange(len(classes))
        if self.to is None:
            return noisy.roll(-1)
        setting = "corruption.kind.to"
        replaced = class_indices(self.to, classes, setting)
        for old, value in zip(replaced, self.to.values(), strict=True):
            new = class_index(value, classes, f"{setting} for class {classes[old]!r}")
            if new == old:
                raise ValueError(
                    f"{setting} replaces class {describe_class(old, classes)} by itself: give "
                    "another class, or leave it out"
                )
            noisy[old] = new
        return noisy
