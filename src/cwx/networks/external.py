"""Networks from other packages."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn


def external(
    *,
    build: Callable[[], nn.Module],
    output: str | Annotated[int, ">= 0"] | None,
    probabilities: bool,
    reverse_channels: bool,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
) -> nn.Module:
    """The network that `build` returns; the three properties of the data are ignored.

    The first forward pass fails if the network does not fit the data. Hooks adapt inputs and
    outputs, so that the names of the weights stay.

    Args:
        build: takes no arguments; the configuration binds its own ones.
        output: which part of the output holds the logits: a key of a mapping, a field of a tuple,
            or an index; ``None`` if the output is a tensor.
        probabilities: whether the output are probabilities; the network then returns their
            logarithms.
        reverse_channels: whether the network takes blue, green, red.

    Raises:
        ValueError: `build` rejects its arguments, or returns no `torch.nn.Module`.
    """
    del in_channels, image_size, num_classes
    name = getattr(getattr(build, "func", build), "__name__", str(build))
    try:
        network = build()
    except TypeError as error:
        raise ValueError(
            f"{name} rejects its arguments ({error}): correct them under network.build"
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{name} returns a {type(network).__name__}, not a torch.nn.Module: set "
            "network.build._target_ to a function or class that builds a network"
        )
    return adapt(
        network, output=output, probabilities=probabilities, reverse_channels=reverse_channels
    )


def adapt(
    network: nn.Module, *, output: str | int | None, probabilities: bool, reverse_channels: bool
) -> nn.Module:
    """The network itself, with hooks on its input and its output (see `external`)."""
    if reverse_channels:
        network.register_forward_pre_hook(_reversed)
    if output is not None:
        network.register_forward_hook(partial(_selected, output))
    if probabilities:
        network.register_forward_hook(_logarithm)
    return network


def _reversed(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].flip(1), *inputs[1:])


def _selected(name: str | int, _: nn.Module, __: Any, output: Any) -> Any:
    """The part of an output that `name` selects.

    Raises:
        ValueError: there is no such part.
    """
    try:
        return output_part(output, name)
    except (LookupError, AttributeError, TypeError) as error:
        raise ValueError(
            f"network.output is {name!r}, but the network returns a {type(output).__name__} "
            "without this part: correct it"
        ) from error


def output_part(output: Any, name: str | int) -> Any:
    """A key of a mapping, a field of a tuple or an item by its index.

    Raises:
        LookupError, AttributeError, TypeError: there is no such part.
    """
    if isinstance(name, int) or isinstance(output, Mapping):
        return output[name]
    return getattr(output, name)


def _logarithm(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    # Probabilities of 0 have a logarithm with a finite gradient.
    return output.clamp_min(torch.finfo(output.dtype).tiny).log()
