"""Loading imported networks: reading trajectories, or importing them into the store."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from cwx.data.datamodule import ImageData
from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.training.build import NetworkFactory, build_network
from cwx.training.importing.checkpoint import import_checkpoint
from cwx.training.importing.expert_buffer import import_buffer


def load_trajectories(
    trajectories: Iterable[str],
    checkpoints: Iterable[str],
    network: nn.Module,
    store: TrajectoryStore,
) -> list[Trajectory]:
    """The trajectories, then the checkpoints, of one kind of network, in the given order.

    Args:
        trajectories: folders of one trajectory, or buffers (`.pt` files) of several.
        checkpoints: files, or names of torchvision weights.
        network: a network of the kind; its weights are not used.

    Raises:
        ValueError: a file is missing, damaged or of another network.
    """
    # The store's locks let one rank import; the other ranks then find the trajectory.
    result = [t for path in trajectories for t in _read(Path(path), network, store)]
    result += [import_checkpoint(source, network, store) for source in checkpoints]
    for trajectory in result:
        trajectory.check(network)
    return result


def load_evaluation_networks(
    checkpoints: Mapping[str, str],
    factories: Mapping[str, NetworkFactory],
    data: ImageData,
    store: TrajectoryStore,
) -> dict[str, list[Trajectory]]:
    """One trajectory for each evaluation network that has a checkpoint, by the network's name.

    Args:
        checkpoints: files or names of torchvision weights, by the name of the evaluation network.
        factories: build the evaluation networks, by name.

    Raises:
        ValueError: a file is missing, damaged or of another network.
    """
    return {
        name: load_trajectories([], [source], build_network(factories[name], data, seed=0), store)
        for name, source in checkpoints.items()
    }


def _read(path: Path, network: nn.Module, store: TrajectoryStore) -> list[Trajectory]:
    if path.suffix != ".pt":
        return [Trajectory(path)]
    return import_buffer(path, network, store)
