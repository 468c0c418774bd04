"""Networks that other packages build."""

from collections.abc import Callable

from torch import nn


def external(
    *,
    build: Callable[[], nn.Module],
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
) -> nn.Module:
    """What `build` makes, which is told nothing of the data: its arguments are its own.

    Whether it fits the data is seen when it is first called.

    Raises:
        ValueError: its arguments are not what it takes, or it makes no network.
    """
    del in_channels, image_size, num_classes
    name = getattr(getattr(build, "func", build), "__name__", str(build))
    try:
        network = build()
    except TypeError as error:
        raise ValueError(
            f"{name} cannot be called as it is configured ({error}): correct its arguments, which "
            "are given under network.build"
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{name} makes a {type(network).__name__}, not a torch.nn.Module: set "
            "network.build._target_ to what builds a network"
        )
    return network
