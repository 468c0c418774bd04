"""Which images serve as canvases of a class (ISCP, §3, "Canvas Sampling"; I6).

A way of sampling takes what a network says of the images to choose from, the class wanted and how
many, and gives their indices, the most preferred first, possibly fewer than asked.
"""

from typing import Protocol

import torch
from torch import Tensor


class Canvas(Protocol):
    def __call__(
        self, logits: Tensor, labels: Tensor, target: int, count: int, generator: torch.Generator, /
    ) -> Tensor | None:
        """At most `count` indices ``[m]``; ``None`` for a white canvas, which is no image.

        Args:
            logits: ``[n, K]`` of the images to choose from.
            labels: ``[n]``.
        """


def positive(logits: Tensor, labels: Tensor, target: int, count: int, _: torch.Generator) -> Tensor:
    """Images of the class, rightly classified, with the highest logits of it."""
    return _highest(logits, (labels == target) & (logits.argmax(1) == target), target, count)


def negative(logits: Tensor, labels: Tensor, target: int, count: int, _: torch.Generator) -> Tensor:
    """Images of other classes, taken for the class, with the highest logits of it."""
    return _highest(logits, (labels != target) & (logits.argmax(1) == target), target, count)


def random(_: Tensor, labels: Tensor, __: int, count: int, generator: torch.Generator) -> Tensor:
    """Any images."""
    return torch.randperm(len(labels), generator=generator)[:count]


def white(*_: Tensor | int | torch.Generator) -> None:
    """All pixels white, which takes the texture away."""


def _highest(logits: Tensor, fit: Tensor, target: int, count: int) -> Tensor:
    candidates = fit.nonzero()[:, 0]
    order = logits[candidates, target].argsort(descending=True, stable=True)
    return candidates[order[:count]]
