"""Opening trajectories that a user names: recordings, folders of states, buffers."""

from pathlib import Path

import torch
from torch import nn

from cwx.storage.finite_weights import first_non_finite
from cwx.storage.regular_files import digest_regular
from cwx.storage.trajectories import Trajectory, TrajectoryStore, format_epochs, state_name
from cwx.storage.trajectory_recorder import recorded_digests, recorded_files
from cwx.training.importing.expert_buffer import import_buffer
from cwx.training.importing.state_folder import import_state_folder


def open_trajectories(
    path: Path, network: nn.Module, store: TrajectoryStore
) -> list[tuple[str, Trajectory]]:
    """The trajectories at `path`, each with a description.

    `path` is a folder that `cwx.TrajectoryRecorder` or the store wrote, a folder of one checkpoint
    for each epoch, or a buffer (a ``.pt`` file). The latter two are imported into `store`.

    Args:
        network: a network of the kind; its weights are not used.

    Raises:
        ValueError: there is no such trajectory, or it is incomplete, damaged, of another network,
            not finite, or does not change between two recorded epochs.
    """
    if not path.exists():
        raise ValueError(
            f"the trajectory {path} does not exist: name a folder or a .pt file in "
            "experts.trajectories"
        )
    if not path.is_dir():
        buffer = import_buffer(path, network, store)
        trajectories = [(f"expert {index} of {path}", t) for index, t in enumerate(buffer)]
    elif any((path / name).exists() for name in ("identity.json", "complete.json")):
        trajectories = [(f"the trajectory {path}", _recording(path))]
    else:
        trajectory = import_state_folder(path, network, store)
        trajectories = [(f"the trajectory {path}", trajectory)]
    for name, trajectory in trajectories:
        trajectory.check(network)
        _check_states(name, trajectory, network)
    return trajectories


def _recording(path: Path) -> Trajectory:
    files = recorded_files(path)
    if files and not (path / "complete.json").exists():
        raise ValueError(
            f"the recording {path} is not complete (epochs {format_epochs(files)}): continue its "
            f"training, or complete it with cwx.TrajectoryRecorder({str(path)!r}).close()"
        )
    trajectory = Trajectory(path)
    digests = recorded_digests(trajectory.identity)
    if digests is None:
        return trajectory
    # The identity stands for the content: studies find what they made from it by the identity.
    for epoch in trajectory.recorded_epochs:
        file = path / state_name(epoch)
        if not file.exists() or digests.get(str(epoch)) != digest_regular(file):
            raise ValueError(
                f"{file} is missing or has changed since it was recorded: restore it, or complete "
                f"the recording anew with cwx.TrajectoryRecorder({str(path)!r}).close()"
            )
    return trajectory


def _check_states(name: str, trajectory: Trajectory, network: nn.Module) -> None:
    """Refuse weights that are not finite, and epochs between which no parameter changed."""
    parameters = [name for name, _ in network.named_parameters()]
    before = None
    for epoch in trajectory.recorded_epochs:
        state = trajectory.state(epoch)
        file = trajectory.path / state_name(epoch)
        if tensor := first_non_finite(state):
            raise ValueError(
                f"{tensor} in epoch {epoch} of {name} is not finite ({file}): record the training "
                "again with a lower learning rate, or only the epochs before"
            )
        if before is not None and all(torch.equal(before[p], state[p]) for p in parameters):
            raise ValueError(
                f"epoch {epoch} of {name} has the weights of the epoch before it ({file}): record "
                "the network that is trained, once after each epoch"
            )
        before = state
