"""A network's state borrowed for a while and given back, also after an exception."""

from collections.abc import Iterable, Iterator
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


@torch.no_grad()
def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor, int]]) -> float:
    """The share in 0-1 of images that `network` labels rightly, in eval mode."""
    right = total = 0
    with evaluating(network):
        for images, labels, _ in batches:
            right += int((network(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total
