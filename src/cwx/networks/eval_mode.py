"""A network's state borrowed for a while and given back, also after an exception."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """Put every submodule in eval mode; each gets its own mode back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield network
    finally:
        for module, training in modes:
            module.training = training


def freeze(network: nn.Module) -> nn.Module:
    """Eval mode and no gradients for the parameters, for good: for networks that we own."""
    return network.eval().requires_grad_(False)


def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor, int]]) -> float:
    """The share in 0-1 of images that `network` labels rightly, in eval mode."""
    return accuracies(network, batches, (1,))[0]


@torch.no_grad()
def accuracies(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor, int]], tops: Sequence[int]
) -> list[float]:
    """The shares in 0-1 of images whose label is among the k highest logits, for each k of `tops`,
    in eval mode."""
    right, total = [0] * len(tops), 0
    with evaluating(network):
        for images, labels, _ in batches:
            logits = network(images)
            right = [n + int(_among(logits, labels, k)) for n, k in zip(right, tops, strict=True)]
            total += len(labels)
    return [n / total for n in right]


def _among(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    # Of equal logits, the highest is the first, as everywhere else.
    highest = logits.argmax(1, keepdim=True) if k == 1 else logits.topk(k).indices
    return (highest == labels[:, None]).sum()
