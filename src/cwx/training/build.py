"""Building untrained networks, and networks with the weights of a trajectory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.networks.eval_mode import freeze
from cwx.storage.trajectories import Trajectory

NetworkFactory = Callable[..., nn.Module]


def build_network(factory: NetworkFactory, data: ImageData, *, seed: int) -> nn.Module:
    """A network for `data` whose initial weights are a function of `seed`."""
    channels, *size = data.image_shape
    # Layers initialise from the global random state, which must not change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory(in_channels=channels, image_size=tuple(size), num_classes=len(data.classes))


@torch.no_grad()
def check_outputs(name: str, factory: NetworkFactory, data: ImageData) -> None:
    """Refuse a kind of network whose input or output shape does not fit the data.

    Args:
        name: the name of the network in the configuration.
        factory: builds the network.

    Raises:
        ValueError: the network does not accept images of this shape, or does not return one logit
            per class; gives the expected and the actual shape.
    """
    network = freeze(build_network(factory, data, seed=0))
    channels, height, width = data.image_shape
    try:
        logits = network(torch.zeros(2, channels, height, width))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{name} ({_kind(network)}) does not take the data's images of {channels} channels "
            f"and {height}x{width} pixels ({reason}): set data.source.channels and "
            "data.source.size to its input shape, or choose another network"
        ) from error
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (2, len(data.classes)):
        raise ValueError(
            f"{name} returns outputs of shape {shape} for two images, but the data have "
            f"{len(data.classes)} classes: it must return one logit per class (num_classes)"
        )


def _kind(network: nn.Module) -> str:
    """The class of a network, and the input channels of its first convolution, if it has one."""
    channels = [m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    return type(network).__name__ + (f" for images of {channels[0]} channels" if channels else "")


def trained_network(
    factory: NetworkFactory, data: ImageData, trajectory: Trajectory, epoch: int | None = None
) -> nn.Module:
    """The network of `trajectory` after `epoch` (default: the last), frozen, in eval mode.

    Raises:
        ValueError: the trajectory was recorded for another network, or not at that epoch.
    """
    network = build_network(factory, data, seed=0)
    trajectory.load_into(network, trajectory.epochs if epoch is None else epoch)
    return freeze(network)
