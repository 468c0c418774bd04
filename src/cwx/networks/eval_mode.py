"""Eval mode of a network, and accuracy in eval mode."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from cwx.networks.finite_logits import finite_logits


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[nn.Module]:
    """Set all submodules to eval mode; on exit, also after an exception, restore their modes."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield network
    finally:
        for module, training in modes:
            module.training = training


def freeze(network: nn.Module) -> nn.Module:
    """Set `network` to eval mode and its parameters to no gradients; nothing restores them."""
    return network.eval().requires_grad_(False)


def device_of(network: nn.Module) -> torch.device:
    """The device of the parameters and buffers of a network; the CPU if it has none."""
    tensors = chain(network.parameters(), network.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor, int]]) -> float:
    """The fraction in 0-1 of images that `network` classifies correctly, in eval mode.

    Args:
        batches: (images, labels, any integer).
    """
    return accuracies(network, batches, (1,))[0]


def accuracies(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor, int]], tops: Sequence[int]
) -> list[float]:
    """Top-k accuracy in 0-1 for each k of `tops`, in eval mode.

    Args:
        batches: (images, labels, any integer).
    """
    total, *correct = correct_counts(network, batches, tops)
    return [count / total for count in correct]


@torch.no_grad()
def correct_counts(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor, int]], tops: Sequence[int]
) -> list[int]:
    """The number of images, then of those with the label among the k highest logits, in eval mode.

    Args:
        batches: (images, labels, any integer), on any device.
        tops: each k.

    Raises:
        NotFiniteError: a prediction is not finite.
    """
    correct, total, device = [0] * len(tops), 0, device_of(network)
    with eval_mode(network):
        for images, labels, _ in batches:
            logits = finite_logits(network(images.to(device)))
            correct = [
                count + int(_correct_count(logits, labels.to(device), k))
                for count, k in zip(correct, tops, strict=True)
            ]
            total += len(labels)
    return [total, *correct]


def _correct_count(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    # argmax takes the first of equal logits, as elsewhere; topk does not.
    top_classes = logits.argmax(1, keepdim=True) if k == 1 else logits.topk(k).indices
    return (top_classes == labels[:, None]).sum()
