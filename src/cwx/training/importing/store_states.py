"""Writing imported weights into the store."""

import logging
from collections.abc import Iterable, Mapping
from itertools import count

from torch import Tensor

from cwx.storage.trajectories import Identity, Recorder, Trajectory, TrajectoryStore

log = logging.getLogger(__name__)


def copy_tensors(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors, so that they share no memory with the file, in the dtypes of `like`.

    >>> import torch
    >>> copy_tensors({"w": torch.ones(1, dtype=torch.float16)}, {"w": torch.zeros(1)})
    {'w': tensor([1.])}
    """
    # Tensors of a file may be views of one storage.
    return {
        name: tensor.detach().to(like[name].dtype, copy=True) for name, tensor in tensors.items()
    }


def store_states(
    store: TrajectoryStore,
    identity: Identity,
    states: Iterable[Mapping[str, Tensor]],
    description: str,
    epochs: Iterable[int] | None = None,
) -> Trajectory:
    """Write states into the store, unless the store holds them already.

    Their accuracies are unknown (NaN).

    Args:
        states: read one at a time, and not at all if the store holds them.
        description: of the imported weights, in log lines.
        epochs: of the states; by default 0, 1, ….
    """
    path = store.path(identity)
    with store.lock(identity, f"another job imports {path.name}: waiting for it"):
        if trajectory := store.find(identity):
            return trajectory
        log.info("importing %s into %s", description, path)
        recorder = Recorder(path, identity)
        recorder.start()
        recorded = []
        for epoch, state in zip(count() if epochs is None else epochs, states, strict=False):
            recorder.record(epoch, state, float("nan"))
            recorded.append(epoch)
        recorder.complete(recorded)
    return Trajectory(path)
