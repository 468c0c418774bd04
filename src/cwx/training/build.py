"""Building untrained networks, and networks with the weights of a trajectory."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.functional.random_numbers import draws_random_numbers
from cwx.functional.rng import stream
from cwx.networks.eval_mode import freeze
from cwx.storage.trajectories import Trajectory
from cwx.training.network_outputs import check_eval_outputs, check_train_outputs

log = logging.getLogger(__name__)

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


def check_outputs(name: str, factory: NetworkFactory, data: ImageData, *, trains: bool) -> None:
    """Refuse a kind of network that does not map images of the data to logits of their classes.

    Two passes of noise in eval mode and, if it trains, one in training mode.

    Args:
        name: the name of the network in the configuration.
        factory: builds the network.
        trains: whether networks of the kind are trained.

    Raises:
        ValueError: the network does not accept images of this shape, or does not return one
            deterministic logit per class of each image alone; names what it returns.
    """
    network = build_network(factory, data, seed=0)
    images = torch.randn(3, *data.image_shape, generator=stream(0))
    with torch.random.fork_rng(devices=[]), _shape_errors(name, network, data):
        network.eval()
        if remark := check_eval_outputs(name, network, images, len(data.classes)):
            log.warning("%s", remark)
        if trains:
            network.train()
            check_train_outputs(name, network, images, len(data.classes))


def depends_on_ranks(factory: NetworkFactory, data: ImageData) -> bool:
    """Whether networks of a kind learn something else on several ranks, beyond rounding.

    Those that draw random numbers in training do, as dropout does: each rank draws for its images.
    """
    images = torch.randn(2, *data.image_shape, generator=stream(0))
    return draws_random_numbers(build_network(factory, data, seed=0), images)


def check_last_batch(name: str, factory: NetworkFactory, data: ImageData, batch_size: int) -> None:
    """Refuse to train a network whose batch normalisation cannot take the last batch of an epoch.

    Batch normalisation of features without positions needs two images or more.

    Args:
        name: the name of the network in the configuration.
        factory: builds the network.
        batch_size: of the training recipe.

    Raises:
        ValueError: the last batch has one image, and the network cannot be trained on it.
    """
    count = len(data.splits.train)
    if batch_size < 1 or (count % batch_size or batch_size) != 1:
        return
    network = build_network(factory, data, seed=0).train()
    with torch.random.fork_rng(devices=[]):
        try:
            network(torch.randn(1, *data.image_shape, generator=stream(0)))
        except ValueError as error:
            raise ValueError(
                f"recipe.batch_size is {batch_size}: the last batch of {count} training images has "
                f"one image, on which the batch normalisation of {name} cannot be trained "
                f"({error}): give another size, such as {_other_size(batch_size, count)}"
            ) from error


def _other_size(batch_size: int, count: int) -> int:
    """The nearest batch size that leaves no batch of one image."""
    sizes = sorted(range(2, max(batch_size, 2) * 2 + 2), key=lambda size: abs(size - batch_size))
    return next(size for size in sizes if count % size != 1)


@contextmanager
def _shape_errors(name: str, network: nn.Module, data: ImageData) -> Iterator[None]:
    channels, height, width = data.image_shape
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{name} ({_kind(network)}) does not take the data's images of {channels} channels "
            f"and {height}x{width} pixels ({reason}): set data.source.channels and "
            "data.source.size to its input shape, or choose another network"
        ) from error


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


def copy_network(network: nn.Module) -> nn.Module:
    """A copy that shares no tensor with a frozen network."""
    # Tensors that a module computes, as weight normalisation does, may have a graph: `deepcopy`
    # refuses them.
    computed = (
        tensor
        for module in network.modules()
        for tensor in vars(module).values()
        if isinstance(tensor, Tensor) and not tensor.is_leaf
    )
    return deepcopy(network, {id(tensor): tensor.detach().clone() for tensor in computed})
