"""Importing buffers: the `.pt` files in which trajectory-matching codes keep expert trajectories.

A buffer is a list of experts, each a list of epochs (the initial weights first), each a list of the
parameter tensors in the order of ``network.named_parameters()``.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cwx.storage.trajectories import Trajectory, TrajectoryStore, difference, shapes
from cwx.training.importing.safe_load import (
    copied,
    described,
    digest,
    is_plain,
    load,
    not_finite,
    store_states,
)

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
    file, experts = digest(path, "buffer"), load(path, "buffer", "lists of tensors alone")
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
        store_states(
            store,
            {"buffer": file, "expert": index, "parameters": kind},
            _states(f"expert {index} of {path}", epochs, parameters),
            f"expert {index} of the buffer",
        )
        for index, epochs in enumerate(experts)
    ]


def _check(path: Path, experts: Any, parameters: Mapping[str, Tensor]) -> None:
    """Refuse what is not a list of lists of the network's parameters."""
    expected = shapes(parameters.items())
    for index, epochs in enumerate(_items(experts, str(path), "experts")):
        for epoch, tensors in enumerate(_items(epochs, f"expert {index} of {path}", "epochs")):
            place = f"epoch {epoch} of expert {index} of {path}"
            for tensor in _items(tensors, place, "tensors"):
                if not is_plain(tensor) or not tensor.is_floating_point():
                    raise ValueError(
                        f"{place} holds {described(tensor)}, not a floating tensor: {_FORM}"
                    )
            names = [*parameters, *(f"tensor {n}" for n in range(len(parameters), len(tensors)))]
            if unlike := difference(expected, shapes(zip(names, tensors, strict=False))):
                raise ValueError(
                    f"{place} is of another network: {unlike}; choose the network that the buffer "
                    "was made with"
                )


def _items(value: Any, place: str, items: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{place} is {described(value)}, not a list of {items}: {_FORM}")
    return value


def _states(
    place: str, epochs: Sequence[Sequence[Tensor]], parameters: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Each epoch's weights by name, copied one epoch at a time."""
    for epoch, tensors in enumerate(epochs):
        state = copied(dict(zip(parameters, tensors, strict=True)), parameters)
        if name := not_finite(state):
            raise ValueError(
                f"{name} in epoch {epoch} of {place} is not finite in {state[name].dtype}: leave "
                "that expert out of the buffer, or train it at a lower rate"
            )
        yield state
