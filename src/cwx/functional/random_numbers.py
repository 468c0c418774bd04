"""Random numbers that a network draws in training, such as those of dropout."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


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
    detection = _Detection()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=[]), torch.no_grad(), detection:
        network(images)
    return detection.has_drawn


class _Detection(TorchDispatchMode):
    has_drawn = False

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(function, "tags", ()):
            self.has_drawn = True
        return function(*args, **(kwargs or {}))
