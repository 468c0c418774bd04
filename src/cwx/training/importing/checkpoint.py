"""Importing checkpoints: the weights of one trained network.

A checkpoint is a state_dict in a file of `torch.save` or safetensors, or the name of torchvision
weights.
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

from cwx.data.datasets.class_folders import preview_names
from cwx.storage.safe_load import describe, file_digest, is_plain, load_tensors
from cwx.storage.trajectories import Trajectory, TrajectoryStore, shapes
from cwx.training.importing.store_states import copy_tensors, first_non_finite, store_states

log = logging.getLogger(__name__)

_NESTS = ("state_dict", "model_state_dict", "model", "net")
_FORM = f"a checkpoint is a state_dict, or holds one as {', '.join(_NESTS)}"
# Added by DataParallel, torch.compile and LightningModules.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
# A counter of batch norm: rarely used, and missing in older files.
_COUNTER = "num_batches_tracked"


def import_checkpoint(source: str, network: nn.Module, store: TrajectoryStore) -> Trajectory:
    """Import a checkpoint as a trajectory with one state (epoch 0) and unknown accuracy (NaN).

    The state is written into `store`, unless it is there, in the dtypes of `network`. The
    state_dict may be stored under a usual key, such as ``state_dict``, and its names may share a
    prefix, such as ``module.``.

    Args:
        source: path of a file, or a name such as ``ResNet50_Weights.IMAGENET1K_V1``, whose file is
            read from torchvision's cache, or downloaded into it.
        network: a network of the saved kind; its weights are not used.

    Raises:
        ValueError: there is no such file or name, the file does not hold plain tensors, the tensors
            are of another network (lists all kinds of difference), or a weight is not finite.
    """
    path = _file(source)
    contents = file_digest(path, "checkpoint")
    state = _state(path, load_tensors(path, "checkpoint", "a state_dict of tensors alone"))
    expected = network.state_dict()
    state = _without_prefix(state, expected)
    _check(path, state, expected)
    counters = {name: expected[name] for name in expected if name not in state}
    # Sorted, because the order of tensors in a checkpoint has no meaning.
    kind = [[name, list(shape)] for name, shape in sorted(shapes(expected.items()).items())]
    return store_states(
        store,
        {"checkpoint": contents, "tensors": kind},
        _finite(path, copy_tensors({**state, **counters}, expected)),
        f"the checkpoint {source}",
    )


def _file(source: str) -> Path:
    """The path of a checkpoint; torchvision weights are downloaded if needed."""
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
        # Downloads into the cache and checks the hash in the file name.
        weights.get_state_dict(check_hash=True, weights_only=True, progress=False)
    except (OSError, RuntimeError, HTTPException) as error:
        raise ValueError(
            f"{weights.url} could not be downloaded ({error}): save it as {cached}, or give "
            "a path in experts.checkpoints"
        ) from error


def _state(path: Path, value: Any) -> dict[str, Tensor]:
    """The state_dict within the contents of a file."""
    # A malicious file may contain itself: the depth of the search is limited.
    for _ in _NESTS:
        inner = [value[key] for key in _NESTS if isinstance(value, Mapping) and key in value]
        value = next((item for item in inner if isinstance(item, Mapping)), value)
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"the checkpoint {path} holds {describe(value)}: {_FORM}")
    for name, tensor in value.items():
        if not isinstance(name, str) or not is_plain(tensor):
            raise ValueError(
                f"the checkpoint {path} holds {describe(tensor)} as {name!r}, not a plain "
                f"tensor: {_FORM}"
            )
    return dict(value)


def _without_prefix(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes common to all names until a name of `expected` appears."""
    while not state.keys() & expected.keys():
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _check(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    common = {name: tensor for name, tensor in state.items() if name in expected}
    differences = {
        "missing": [n for n in expected if n not in state and not n.endswith(_COUNTER)],
        "unexpected": [n for n in state if n not in expected],
        "different shape": [
            f"{n} {tuple(t.shape)} for {tuple(expected[n].shape)}"
            for n, t in common.items()
            if t.shape != expected[n].shape
        ],
        "different kind of dtype": [
            f"{n} ({t.dtype})"
            for n, t in common.items()
            if t.is_floating_point() != expected[n].is_floating_point()
        ],
    }
    if any(differences.values()):
        summary = "; ".join(
            f"{kind} {preview_names(names)}" for kind, names in differences.items() if names
        )
        raise ValueError(
            f"the checkpoint {path} is of another network: {summary}; choose the network that "
            "was trained (network=…), or another file"
        )


def _finite(path: Path, state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    if name := first_non_finite(state):
        raise ValueError(
            f"{name} in the checkpoint {path} is not finite in {state[name].dtype}: use the "
            "weights of an earlier epoch, or train the network with a lower learning rate"
        )
    yield state
