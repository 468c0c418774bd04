"""Choice of the canvas images of a class (ISCP, §3, "Canvas Sampling").

A sampling function takes the network's logits for the candidate images, their labels, the target
class and a count. It returns the indices of at most `count` images, the preferred ones first, or a
function that makes canvases that are no images of the data.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

# From the shape (C, H, W) of an image to unit images ``[m, C, H, W]``, pixels in 0-1.
Drawing = Callable[[Sequence[int]], Tensor]


class Canvas(Protocol):
    def __call__(
        self, logits: Tensor, labels: Tensor, target: int, count: int, generator: torch.Generator, /
    ) -> Tensor | Drawing:
        """At most `count` indices ``[m]``, or a function that makes at most `count` canvases.

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


def white(*_: Tensor | int | torch.Generator) -> Drawing:
    """One white canvas, which has no texture."""
    return lambda shape: torch.ones(1, *shape)


def noise(_: Tensor, ___: Tensor, __: int, count: int, generator: torch.Generator) -> Drawing:
    """Uniform noise, independent in every pixel and channel: texture without content."""
    return lambda shape: torch.rand(count, *shape, generator=generator)


def derangement(count: int, generator: torch.Generator) -> Tensor:
    """A random permutation ``[count]`` that leaves no index in its place, all of them alike.

    Raises:
        ValueError: `count` is below 2.
    """
    if count < 2:
        raise ValueError(f"{count} items have no other order: give 2 or more")
    places = torch.arange(count)
    while True:
        # 1 in e permutations is a derangement.
        order = torch.randperm(count, generator=generator)
        if (order != places).all():
            return order


def _highest(logits: Tensor, mask: Tensor, target: int, count: int) -> Tensor:
    candidates = mask.nonzero()[:, 0]
    order = logits[candidates, target].argsort(descending=True, stable=True)
    return candidates[order[:count]]
