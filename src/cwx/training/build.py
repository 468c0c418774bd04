"""Building networks for data, untrained and with the weights of a trajectory."""

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
    # Layers draw from the global stream: borrow it and give it back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory(in_channels=channels, image_size=tuple(size), num_classes=len(data.classes))


@torch.no_grad()
def check_outputs(name: str, factory: NetworkFactory, data: ImageData) -> None:
    """Refuse a kind of network, named as the user knows it, that does not fit the data.

    Raises:
        ValueError: it takes no images of their channels and size, or gives not one logit a class;
            names both numbers.
    """
    network = freeze(build_network(factory, data, seed=0))
    channels, height, width = data.image_shape
    try:
        logits = network(torch.zeros(2, channels, height, width))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{name} ({_kind(network)}) does not take the data's images of {channels} channels "
            f"and {height}x{width} pixels ({reason}): bring these to what it was made for "
            "(data.source.channels, data.source.size), or choose another network"
        ) from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (2, len(data.classes)):
        raise ValueError(
            f"{name} gives outputs of shape {found} for two images, and the data have "
            f"{len(data.classes)} classes: it must give one logit a class (num_classes)"
        )


def _kind(network: nn.Module) -> str:
    """The class of a network, and the channels that its first convolution takes, if it has one."""
    takes = [m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    return type(network).__name__ + (f" for images of {takes[0]} channels" if takes else "")


def trained_network(
    factory: NetworkFactory, data: ImageData, trajectory: Trajectory, epoch: int | None = None
) -> nn.Module:
    """The network of `trajectory` after `epoch` (by default its last), frozen in eval mode.

    Raises:
        ValueError: the trajectory was recorded for another network.
    """
    network = build_network(factory, data, seed=0)
    trajectory.load_into(network, trajectory.epochs if epoch is None else epoch)
    return freeze(network)
