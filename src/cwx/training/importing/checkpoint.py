"""Importing checkpoints: the weights of one trained network, as other codes save them.

A checkpoint is a state_dict, in a file of `torch.save` or of safetensors, or the name of weights
that torchvision publishes.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_weight

from cwx.data.datasets.folders import some
from cwx.storage.trajectories import Trajectory, TrajectoryStore, shapes
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

_NESTS = ("state_dict", "model_state_dict", "model", "net")
_FORM = f"a checkpoint is a state_dict, or holds one as {', '.join(_NESTS)}"
# Left by DataParallel, torch.compile and LightningModules.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
# Of batch norm, whose running mean needs it in no usual setting; older files lack it.
_COUNTER = "num_batches_tracked"


def import_checkpoint(source: str, network: nn.Module, store: TrajectoryStore) -> Trajectory:
    """The network of a checkpoint, as a trajectory of one state, epoch 0, of unknown accuracy.

    It is written into `store` unless it is there, in the precision of `network`. Weights may lie
    under a usual key, such as ``state_dict``, and their names share a prefix, such as ``module.``.

    Args:
        source: path of a file, or a name such as ``ResNet50_Weights.IMAGENET1K_V1``, whose file is
            taken from torchvision's cache, or downloaded into it.
        network: of the kind that was saved; its weights are of no meaning.

    Raises:
        ValueError: there is no such file or name, it holds no plain tensors, those of another
            network (names all kinds of difference), or a weight that is not finite.
    """
    path = _file(source)
    contents = digest(path, "checkpoint")
    found = _state(path, load(path, "checkpoint", "a state_dict of tensors alone"))
    expected = network.state_dict()
    found = _without_prefix(found, expected)
    _check(path, found, expected)
    counters = {name: expected[name] for name in expected if name not in found}
    # Sorted, for a checkpoint's order is of no meaning.
    kind = [[name, list(shape)] for name, shape in sorted(shapes(expected.items()).items())]
    return store_states(
        store,
        {"checkpoint": contents, "tensors": kind},
        _finite(path, copied({**found, **counters}, expected)),
        f"the checkpoint {source}",
    )


def _file(source: str) -> Path:
    """The file of a checkpoint, which is downloaded if torchvision has it."""
    path = Path(source)
    if path.exists() or not re.fullmatch(r"\w+_Weights\.\w+", source):
        return path
    try:
        weights: Any = get_weight(source)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"there is no file {source}, and torchvision has no weights of that name: give a "
            "path, or a name such as ResNet50_Weights.IMAGENET1K_V1"
        ) from error
    name = str(weights.url).rpartition("/")[2]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not cached.exists():
        _download(weights, cached)
    return cached


def _download(weights: Any, cached: Path) -> None:
    log.info("downloading %s", weights.url)
    try:
        # Into the cache, and checked against the hash in its name.
        weights.get_state_dict(check_hash=True, weights_only=True, progress=False)
    except (OSError, RuntimeError, HTTPException) as error:
        raise ValueError(
            f"{weights.url} could not be fetched ({error}): place it as {cached}, or give "
            "experts.checkpoints a path"
        ) from error


def _state(path: Path, value: Any) -> dict[str, Tensor]:
    """The state_dict in what a file holds."""
    # A file may refer to itself: no deeper than each key once.
    for _ in _NESTS:
        inner = [value[key] for key in _NESTS if isinstance(value, Mapping) and key in value]
        value = next((item for item in inner if isinstance(item, Mapping)), value)
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"the checkpoint {path} holds {described(value)}: {_FORM}")
    for name, tensor in value.items():
        if not isinstance(name, str) or not is_plain(tensor):
            raise ValueError(
                f"the checkpoint {path} holds {described(tensor)} as {name!r}, not a plain "
                f"tensor: {_FORM}"
            )
    return dict(value)


def _without_prefix(found: dict[str, Tensor], known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that all names share, until the network knows one of them."""
    while not found.keys() & known.keys():
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in found)), None)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _check(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    there = {name: tensor for name, tensor in found.items() if name in expected}
    faults = {
        "it lacks": [n for n in expected if n not in found and not n.endswith(_COUNTER)],
        "it has, unknown here,": [n for n in found if n not in expected],
        "it has in another shape": [
            f"{n} {tuple(t.shape)} for {tuple(expected[n].shape)}"
            for n, t in there.items()
            if t.shape != expected[n].shape
        ],
        "it has as another kind of number": [
            f"{n} ({t.dtype})"
            for n, t in there.items()
            if t.is_floating_point() != expected[n].is_floating_point()
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{fault} {some(names)}" for fault, names in faults.items() if names)
        raise ValueError(
            f"the checkpoint {path} is of another network: {listed}; choose the network that it "
            "was trained as (network=…), or another file"
        )


def _finite(path: Path, state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    if name := not_finite(state):
        raise ValueError(
            f"{name} in the checkpoint {path} is not finite in {state[name].dtype}: take the "
            "weights of an earlier epoch, or train the network at a lower rate"
        )
    yield state
