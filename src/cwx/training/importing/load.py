"""Networks that were trained elsewhere: read from the store, or imported into it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from cwx.data.datamodule import ImageData
from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.training.build import NetworkFactory, build_network
from cwx.training.importing.checkpoint import import_checkpoint
from cwx.training.importing.expert_buffer import import_buffer


def recorded(
    trajectories: Iterable[str],
    checkpoints: Iterable[str],
    network: nn.Module,
    store: TrajectoryStore,
) -> list[Trajectory]:
    """What was recorded elsewhere for a kind of network, in order.

    Args:
        trajectories: folders, or buffers (`.pt` files) of several.
        checkpoints: files, or names under which torchvision publishes weights.
        network: of the kind; its weights are of no meaning.

    Raises:
        ValueError: one is missing, damaged or of another network.
    """
    # The store's locks let one rank import, the others find.
    found = [t for path in trajectories for t in _read(Path(path), network, store)]
    found += [import_checkpoint(source, network, store) for source in checkpoints]
    for trajectory in found:
        trajectory.check(network)
    return found


def load_evaluation_networks(
    checkpoints: Mapping[str, str],
    factories: Mapping[str, NetworkFactory],
    data: ImageData,
    store: TrajectoryStore,
) -> dict[str, list[Trajectory]]:
    """One network for each evaluation network that has a checkpoint, by the evaluation network's name.

    Args:
        checkpoints: files or published names, by that of a evaluation network.
        factories: build the evaluation networks.

    Raises:
        ValueError: one is missing, damaged or of another network.
    """
    return {
        name: recorded([], [source], build_network(factories[name], data, seed=0), store)
        for name, source in checkpoints.items()
    }


def _read(path: Path, network: nn.Module, store: TrajectoryStore) -> list[Trajectory]:
    if path.suffix != ".pt":
        return [Trajectory(path)]
    return import_buffer(path, network, store)
