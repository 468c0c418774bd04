"""Importing buffers: the `.pt` files in which trajectory-matching codes keep expert trajectories.

A buffer is a list of experts, each a list of epochs (the initial weights first), each a list of the
parameter tensors in the order of ``network.named_parameters()``.
"""

import hashlib
import logging
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cwx.trajectories import Identity, Recorder, Trajectory, TrajectoryStore, difference, shapes

log = logging.getLogger(__name__)

_FORM = "a buffer is a list of experts, each a list of epochs, each a list of parameter tensors"


def import_buffer(path: Path, network: nn.Module, store: TrajectoryStore) -> list[Trajectory]:
    """The experts of the buffer at `path`, each written into `store` unless it is there.

    They hold parameters alone, in the precision of `network`: no running statistics, and an
    unknown accuracy.

    Args:
        network: of the kind that the buffer was made with; its weights are of no meaning.

    Raises:
        ValueError: the file is no whole buffer of plain tensors, was made with another network
            (names the first parameter that differs), or holds a weight that is not finite.
    """
    digest, experts = _digest(path), _load(path)
    parameters = dict(network.named_parameters())
    _check(path, experts, parameters)
    if missing := [name for name in network.state_dict() if name not in parameters]:
        log.warning(
            "%s holds parameters alone, no %s: methods can learn from it, but whatever needs the "
            "trained network will refuse it",
            path,
            missing[0],
        )
    # Pairs, for the order of the parameters is what gives a buffer's tensors their names.
    kind = [[name, list(shape)] for name, shape in shapes(parameters.items()).items()]
    return [
        _imported(
            store,
            {"buffer": digest, "expert": index, "parameters": kind},
            _states(f"expert {index} of {path}", epochs, parameters),
        )
        for index, epochs in enumerate(experts)
    ]


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"the buffer {path} cannot be read ({error.strerror}): name a file that is there"
        ) from error


def _load(path: Path) -> Any:
    try:
        # Mapped, the experts take no memory until their weights are read.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # The unpickler of a damaged or hostile file may raise anything.
        raise ValueError(
            f"the buffer {path} is truncated, damaged or not plain tensors "
            f"({type(error).__name__}); no code in it was run: copy it again, or save it anew as "
            "lists of tensors alone"
        ) from error


def _check(path: Path, experts: Any, parameters: Mapping[str, Tensor]) -> None:
    """Refuse what is not a list of lists of the network's parameters."""
    expected = shapes(parameters.items())
    for index, epochs in enumerate(_items(experts, str(path), "experts")):
        for epoch, tensors in enumerate(_items(epochs, f"expert {index} of {path}", "epochs")):
            place = f"epoch {epoch} of expert {index} of {path}"
            for tensor in _items(tensors, place, "tensors"):
                if not _plain(tensor):
                    raise ValueError(
                        f"{place} holds {_described(tensor)}, not a floating tensor: {_FORM}"
                    )
            names = [*parameters, *(f"tensor {n}" for n in range(len(parameters), len(tensors)))]
            if unlike := difference(expected, shapes(zip(names, tensors, strict=False))):
                raise ValueError(
                    f"{place} is of another network: {unlike}; choose the network that the buffer "
                    "was made with"
                )


def _items(value: Any, place: str, items: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{place} is {_described(value)}, not a list of {items}: {_FORM}")
    return value


def _plain(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.layout is torch.strided
        and value.device.type == "cpu"
    )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} ({value.layout}, {value.device})"
    return "an empty list" if value == [] else f"a {type(value).__name__}"


def _states(
    place: str, epochs: Sequence[Sequence[Tensor]], parameters: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Each epoch's weights by name, copied one epoch at a time."""
    for epoch, tensors in enumerate(epochs):
        # Copies, for a file's tensors may be views of one storage.
        state = {
            name: tensor.detach().to(parameter.dtype, copy=True)
            for (name, parameter), tensor in zip(parameters.items(), tensors, strict=True)
        }
        for name, tensor in state.items():
            if not tensor.isfinite().all():
                raise ValueError(
                    f"{name} in epoch {epoch} of {place} is not finite in {tensor.dtype}: leave "
                    "that expert out of the buffer, or train it at a lower rate"
                )
        yield state


def _imported(
    store: TrajectoryStore, identity: Identity, states: Iterator[Mapping[str, Tensor]]
) -> Trajectory:
    path = store.path(identity)
    with store.lock(identity, f"another job imports {path.name}: waiting for it"):
        if found := store.find(identity):
            return found
        log.info("importing expert %d of the buffer into %s", identity["expert"], path)
        recorder = Recorder(path, identity)
        recorder.start()
        epoch = -1
        for epoch, state in enumerate(states):
            recorder.record(epoch, state, math.nan)
        recorder.complete(range(epoch + 1))
    return Trajectory(path)
