"""Building untrained networks, and networks with the weights of a trajectory."""

import os
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


def check_memory(required: int, cause: str, remedy: str) -> None:
    """Refuse what exceeds the main memory of this machine.

    Args:
        required: bytes.
        cause: what requires them, with the setting and its value.

    Raises:
        ValueError: gives the required and the available memory.
    """
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if required > available:
        raise ValueError(
            f"{cause} and takes {required / 2**30:.3g} GiB, but this machine has "
            f"{available / 2**30:.3g} GiB of memory: {remedy}"
        )


def check_size(setting: str, factory: NetworkFactory, data: ImageData) -> None:
    """Refuse a network that cannot be built or exceeds the main memory, without building it.

    Args:
        setting: the name of the setting that holds `factory`.

    Raises:
        ValueError: names the settings of the network.
    """
    settings = ", ".join(
        f"{setting}.{name}={value}"
        for name, value in getattr(factory, "keywords", {}).items()
        if isinstance(value, int | float | list | tuple) and not isinstance(value, bool)
    )
    try:
        with torch.device("meta"):
            network = build_network(factory, data, seed=0)
    except NotImplementedError:
        # Networks with imported weights are not built without them.
        return
    except (RuntimeError, OverflowError, MemoryError, ZeroDivisionError, IndexError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{setting} cannot be built with {settings or 'its settings'} ({reason}): correct them"
        ) from error
    tensors = [*network.parameters(), *network.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    check_memory(size, f"{setting} has {settings or 'many weights'}", "choose a smaller network")


@torch.no_grad()
def check_outputs(name: str, factory: NetworkFactory, data: ImageData) -> None:
    """Refuse a kind of network whose input or output shape does not fit the data.

    Args:
        name: the name of the network in the configuration.
        factory: builds the network.

    Raises:
        ValueError: the network does not accept images of this shape, does not return one logit
            per class, or returns numbers that are not finite.
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
    if isinstance(logits, Tensor) and not logits.isfinite().all():
        raise ValueError(
            f"{name} ({_kind(network)}) has outputs that are not finite before any training: check "
            "its settings and weights"
        )
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
