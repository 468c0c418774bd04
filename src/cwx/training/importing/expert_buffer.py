"""Importing buffers: `.pt` files in which trajectory-matching code saves expert trajectories.

A buffer is a list of experts; an expert is a list of epochs (the initial weights first); an epoch
is a list of parameter tensors in the order of ``network.named_parameters()``.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cwx.storage.finite_weights import first_non_finite
from cwx.storage.safe_load import describe, file_digest, is_plain, load_tensors
from cwx.storage.tensor_shapes import difference, shapes
from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.training.importing.store_states import copy_tensors, store_states

log = logging.getLogger(__name__)

_FORM = "a buffer is a list of experts, each a list of epochs, each a list of parameter tensors"


def import_buffer(path: Path, network: nn.Module, store: TrajectoryStore) -> list[Trajectory]:
    """Import the experts of the buffer at `path` into `store`, unless they are there.

    The trajectories hold only parameters, in the dtypes of `network`: no running statistics, and
    unknown accuracies (NaN).

    Args:
        network: a network of the kind in the buffer; its weights are not used.

    Raises:
        ValueError: the file is not a buffer of plain tensors, is of another network (names the
            first parameter that differs), or holds a weight that is not finite.
    """
    digest = file_digest(path, "buffer")
    experts = load_tensors(path, "buffer", "lists of tensors alone")
    parameters = dict(network.named_parameters())
    _check(path, experts, parameters)
    if missing := [name for name in network.state_dict() if name not in parameters]:
        log.warning(
            "%s holds only parameters, no %s: methods can use its trajectories, but stages that "
            "need the trained network will raise an error",
            path,
            missing[0],
        )
    # A list of pairs, because the order of the parameters defines the names of the tensors.
    kind = [[name, list(shape)] for name, shape in shapes(parameters.items()).items()]
    return [
        store_states(
            store,
            {"buffer": digest, "expert": index, "parameters": kind},
            _states(f"expert {index} of {path}", epochs, parameters),
            f"expert {index} of the buffer",
        )
        for index, epochs in enumerate(experts)
    ]


def _check(path: Path, experts: Any, parameters: Mapping[str, Tensor]) -> None:
    """Refuse contents that are not lists of lists of the network's parameters."""
    expected = shapes(parameters.items())
    for index, epochs in enumerate(_items(experts, str(path), "experts")):
        for epoch, tensors in enumerate(_items(epochs, f"expert {index} of {path}", "epochs")):
            location = f"epoch {epoch} of expert {index} of {path}"
            for tensor in _items(tensors, location, "tensors"):
                if not is_plain(tensor) or not tensor.is_floating_point():
                    raise ValueError(
                        f"{location} holds {describe(tensor)}, not a floating tensor: {_FORM}"
                    )
            names = [*parameters, *(f"tensor {n}" for n in range(len(parameters), len(tensors)))]
            if mismatch := difference(expected, shapes(zip(names, tensors, strict=False))):
                raise ValueError(
                    f"{location} is of another network: {mismatch}; choose the network of the "
                    "buffer (network=…)"
                )


def _items(value: Any, location: str, items: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{location} is {describe(value)}, not a list of {items}: {_FORM}")
    return value


def _states(
    expert: str, epochs: Sequence[Sequence[Tensor]], parameters: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Yield the weights of each epoch by name; only one epoch is copied at a time."""
    for epoch, tensors in enumerate(epochs):
        state = copy_tensors(dict(zip(parameters, tensors, strict=True)), parameters)
        if name := first_non_finite(state):
            raise ValueError(
                f"{name} in epoch {epoch} of {expert} is not finite in {state[name].dtype}: remove "
                "that expert from the buffer, or train it with a lower learning rate"
            )
        yield state
