"""What every import of weights trained elsewhere shares: safe reading, and a place in the store."""

import hashlib
import logging
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cwx.storage.trajectories import Identity, Recorder, Trajectory, TrajectoryStore

log = logging.getLogger(__name__)


def digest(path: Path, kind: str) -> str:
    """The SHA-256 of a file's bytes.

    Args:
        kind: names the file in the error.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"the {kind} {path} cannot be read ({error.strerror}): name a file that is there"
        ) from error


def load(path: Path, kind: str, form: str) -> Any:
    """What a file of plain tensors holds, on the CPU; no code in the file is run.

    Args:
        kind, form: name the file, and what it should hold, in the error.

    Raises:
        ValueError: the file is damaged, or holds anything but containers of tensors and numbers.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Mapped, the weights take no memory until they are read.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # The unpickler of a damaged or hostile file may raise anything.
        raise ValueError(
            f"the {kind} {path} is truncated, damaged or not plain tensors "
            f"({type(error).__name__}); no code in it was run: copy it again, or save it anew as "
            f"{form}"
        ) from error


def is_plain(value: Any) -> bool:
    """Whether a value is a tensor whose numbers lie in memory."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def described(value: Any) -> str:
    """A value in words, for an error."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} ({value.layout}, {value.device})"
    return "an empty list" if value == [] else f"a {type(value).__name__}"


def copied(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory with the file, in the precision of a network's own.

    >>> copied({"w": torch.ones(1, dtype=torch.float16)}, {"w": torch.zeros(1)})
    {'w': tensor([1.])}
    """
    # Copies, for a file's tensors may be views of one storage.
    return {
        name: tensor.detach().to(like[name].dtype, copy=True) for name, tensor in tensors.items()
    }


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with an infinite weight or none at all; ``None`` if none has."""
    return next((name for name, tensor in state.items() if not tensor.isfinite().all()), None)


def store_states(
    store: TrajectoryStore, identity: Identity, states: Iterable[Mapping[str, Tensor]], what: str
) -> Trajectory:
    """Put states, of epochs 0, 1, …, into the store unless they are there.

    Their accuracies are unknown.

    Args:
        states: read one at a time, and not at all if the store has them.
        what: is imported, in logs.
    """
    path = store.path(identity)
    with store.lock(identity, f"another job imports {path.name}: waiting for it"):
        if found := store.find(identity):
            return found
        log.info("importing %s into %s", what, path)
        recorder = Recorder(path, identity)
        recorder.start()
        epoch = -1
        for epoch, state in enumerate(states):
            recorder.record(epoch, state, float("nan"))
        recorder.complete(range(epoch + 1))
    return Trajectory(path)
