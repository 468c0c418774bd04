"""Choice of the canvas images of a class (ISCP, §3, "Canvas Sampling"; I6).

A sampling function takes the network's logits for the candidate images, their labels, the target
class and a count. It returns the indices of at most `count` images, the preferred ones first.
"""

from typing import Protocol

import torch
from torch import Tensor


class Canvas(Protocol):
    def __call__(
        self, logits: Tensor, labels: Tensor, target: int, count: int, generator: torch.Generator, /
    ) -> Tensor | None:
        """At most `count` indices ``[m]``; ``None`` for a white canvas, which is not an image.

        Args:
            logits: of the candidate images, ``[n, K]``.
            labels: of the candidate images, ``[n]``.
        """


def positive(logits: Tensor, labels: Tensor, target: int, count: int, _: torch.Generator) -> Tensor:
    """Correctly classified images of the target class with its highest logits."""
    return _highest(logits, (labels == target) & (logits.argmax(1) == target), target, count)


def negative(logits: Tensor, labels: Tensor, target: int, count: int, _: torch.Generator) -> Tensor:
    """Images of other classes that are classified as the target, with its highest logits."""
    return _highest(logits, (labels != target) & (logits.argmax(1) == target), target, count)


def random(_: Tensor, labels: Tensor, __: int, count: int, generator: torch.Generator) -> Tensor:
    """Random images of any class."""
    return torch.randperm(len(labels), generator=generator)[:count]


def white(*_: Tensor | int | torch.Generator) -> None:
    """A white canvas, which has no texture."""


def _highest(logits: Tensor, mask: Tensor, target: int, count: int) -> Tensor:
    candidates = mask.nonzero()[:, 0]
    order = logits[candidates, target].argsort(descending=True, stable=True)
    return candidates[order[:count]]
