"""Networks from other packages."""

from collections.abc import Callable

from torch import nn


def external(
    *,
    build: Callable[[], nn.Module],
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
) -> nn.Module:
    """The network that `build` returns; the three properties of the data are ignored.

    The first forward pass fails if the network does not fit the data.

    Args:
        build: takes no arguments; the configuration binds its own ones.

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
    return network
