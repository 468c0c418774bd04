"""Importing folders of state_dicts: one checkpoint of a training for each epoch."""

import logging
from pathlib import Path

from torch import nn

from cwx.storage.safe_load import file_digest
from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.training.importing.checkpoint import kind_of, read_checkpoint
from cwx.training.importing.epoch_numbers import epochs_of
from cwx.training.importing.store_states import store_states

log = logging.getLogger(__name__)

# The longer suffix first.
_SUFFIXES = (".pth.tar", ".pt", ".pth", ".ckpt", ".safetensors")


def import_state_folder(folder: Path, network: nn.Module, store: TrajectoryStore) -> Trajectory:
    """Import a folder of checkpoints into `store`, unless its trajectory is there.

    Each file is read as `import_checkpoint` reads a checkpoint, with its running statistics. The
    numbers in the names are the epochs (`epochs_of`); accuracies are unknown (NaN). Other files are
    left out and logged.

    Args:
        folder: has at least one file with the suffix ``.pt``, ``.pth``, ``.pth.tar``, ``.ckpt`` or
            ``.safetensors``.
        network: a network of the saved kind; its weights are not used.

    Raises:
        ValueError: there is no such file, the order of the files is unclear (lists the names), or
            a file is damaged, of another network or not finite (names the file).
    """
    suffixes = _files(folder)
    try:
        epochs = epochs_of(suffixes)
    except ValueError as error:
        raise ValueError(f"the order of the states in {folder} is unclear: {error}") from error
    expected = network.state_dict()
    digests = {name: file_digest(folder / name, "checkpoint") for name in epochs}
    return store_states(
        store,
        {
            "states": [[epoch, digests[name]] for name, epoch in epochs.items()],
            "tensors": kind_of(expected),
        },
        (read_checkpoint(folder / name, expected) for name in epochs),
        f"{len(epochs)} states of {folder} ({_summary(epochs)})",
        epochs.values(),
    )


def _files(folder: Path) -> dict[str, str]:
    """The suffix of each checkpoint in a folder, by its name."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be read ({error.strerror}): name a folder of states in "
            "experts.trajectories"
        ) from error
    suffixes = {
        name: suffix
        for name in names
        if (suffix := next((s for s in _SUFFIXES if name.lower().endswith(s)), ""))
    }
    if not suffixes:
        raise ValueError(
            f"{folder} has no trajectory: neither a recording of cwx nor files "
            f"({', '.join(_SUFFIXES)}): name another folder in experts.trajectories"
        )
    if others := [name for name in names if name not in suffixes]:
        log.info("%s: left out beside the states: %s", folder, ", ".join(others[:12]))
    return {name: name[len(name) - len(suffix) :] for name, suffix in suffixes.items()}


def _summary(epochs: dict[str, int]) -> str:
    names = list(epochs)
    ends = [f"{name} is epoch {epochs[name]}" for name in (names[0], names[-1])]
    return " to ".join(dict.fromkeys(ends))
