"""Random numbers that a network draws in training, such as those of dropout."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """A context in which random numbers without a generator of their own depend on `generator`.

    Afterwards the global random state is as before.

    Args:
        generator: on the CPU; one number is drawn.
        device: where the random numbers are drawn, beside the CPU.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def draws_random_numbers(network: nn.Module, images: Tensor) -> bool:
    """Whether a forward pass in training mode draws random numbers.

    Args:
        network: on the CPU; it stays in training mode, and its running statistics change.
        images: ``[n, C, H, W]``, normalised; two or more.
    """
    network.train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        network(images)
        return not torch.equal(before, torch.get_rng_state())
