"""Loading imported networks: reading trajectories, or importing them into the store."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cwx.data.datamodule import ImageData
from cwx.storage.continued_training import CONTINUED
from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.training.build import NetworkFactory, build_network, trained_network
from cwx.training.experts import Experts
from cwx.training.importing.accuracy_check import check_accuracy
from cwx.training.importing.checkpoint import import_checkpoint
from cwx.training.importing.published_weights import full_weights_name
from cwx.training.importing.trajectory_folder import open_trajectories

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImportedNetworks:
    """The trajectories of networks that were trained elsewhere.

    Attributes:
        experts: of the explained kind: those of `experts.trajectories`, then the checkpoints.
        recorded_epochs: of the trajectories among `experts`, by their descriptions.
        evaluation_networks: one for each evaluation network with a checkpoint, by its name.
        bank: the networks of `experts.bank.checkpoints`.
    """

    experts: Sequence[Trajectory] = ()
    recorded_epochs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    evaluation_networks: Mapping[str, Sequence[Trajectory]] = field(default_factory=dict)
    bank: Sequence[Trajectory] = ()


def import_networks(
    experts: Experts,
    network: NetworkFactory,
    evaluation_networks: Mapping[str, NetworkFactory],
    data: ImageData,
    store: TrajectoryStore,
    device: torch.device,
) -> ImportedNetworks:
    """Read or import the trajectories and checkpoints of a study, and check their accuracy.

    Args:
        experts: names the files.
        network: builds the explained kind of network.
        evaluation_networks: build networks of other architectures, by name.
        data: the images.
        device: to measure the accuracy on.

    Raises:
        ValueError: a network is missing, damaged, of another network, was not recorded at
            `experts.epoch`, or does not fit the images (`check_accuracy`).
    """
    explained = _load(experts, network, data, store)
    for _, trajectory in explained:
        if experts.epoch is not None:
            trajectory.require(experts.epoch)
    bank = [
        (f"{source} (bank)", trajectory)
        for source, trajectory in _checkpoints(experts.bank.checkpoints, network, data, store)
    ]
    others = {}
    for name, source in experts.evaluation_checkpoints.items():
        empty = build_network(evaluation_networks[name], data, seed=0)
        full_name = full_weights_name(source, evaluation_networks[name])
        others[name] = import_checkpoint(full_name, empty, store)
        others[name].check(empty)
    if experts.check_accuracy:
        for source, trajectory in [*explained, *bank]:
            _check_accuracy(source, trajectory, network, data, device)
        for name, trajectory in others.items():
            source = f"{experts.evaluation_checkpoints[name]} (evaluation network {name})"
            _check_accuracy(source, trajectory, evaluation_networks[name], data, device)
    return ImportedNetworks(
        experts=[trajectory for _, trajectory in explained],
        recorded_epochs={name: trajectory.recorded_epochs for name, trajectory in explained}
        if experts.trajectories
        else {},
        evaluation_networks={name: [trajectory] for name, trajectory in others.items()},
        bank=[trajectory for _, trajectory in bank],
    )


def _load(
    experts: Experts, factory: NetworkFactory, data: ImageData, store: TrajectoryStore
) -> list[tuple[str, Trajectory]]:
    """The trajectories, then the checkpoints, each with a description."""
    empty = build_network(factory, data, seed=0)
    # The store's locks let one rank import; the other ranks then find the trajectory.
    result = []
    for path in map(Path, experts.trajectories):
        result += open_trajectories(path, empty, store)
    for source, trajectory in _checkpoints(experts.checkpoints, factory, data, store):
        result.append((f"the checkpoint {source}", trajectory))
        if experts.continues:
            log.info("%s: %s, for %d epochs", source, CONTINUED, experts.early.epochs)
    return result


def _checkpoints(
    sources: Sequence[str], factory: NetworkFactory, data: ImageData, store: TrajectoryStore
) -> list[tuple[str, Trajectory]]:
    """The networks of some files, or of published weights, each with its source."""
    if not sources:
        return []
    empty = build_network(factory, data, seed=0)
    names = [full_weights_name(source, factory) for source in sources]
    result = [(name, import_checkpoint(name, empty, store)) for name in names]
    for _, trajectory in result:
        trajectory.check(empty)
    return result


def _check_accuracy(
    source: str,
    trajectory: Trajectory,
    factory: NetworkFactory,
    data: ImageData,
    device: torch.device,
) -> None:
    if not trajectory.is_complete_for(build_network(factory, data, seed=0)):
        log.warning("%s has no running statistics: its accuracy cannot be checked", source)
        return
    check_accuracy(source, trained_network(factory, data, trajectory), data, device)
