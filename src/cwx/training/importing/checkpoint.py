"""Importing checkpoints: the weights of one trained network.

A checkpoint is a state_dict in a file of `torch.save` or safetensors, or the name of torchvision
weights.
"""

import logging
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_weight

from cwx.data.datasets.class_folders import preview_names
from cwx.storage.finite_weights import first_non_finite
from cwx.storage.safe_load import file_digest
from cwx.storage.tensor_shapes import shapes
from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.training.importing.nests import FOREIGN
from cwx.training.importing.published_weights import is_weights_name
from cwx.training.importing.store_states import copy_tensors, store_states
from cwx.training.importing.weights_file import WeightsFile, read_weights, weights_path

log = logging.getLogger(__name__)

# Added by DataParallel, torch.compile and LightningModules.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
# A counter of batch norm: rarely used, and missing in older files.
COUNTER = "num_batches_tracked"


def import_checkpoint(source: str, network: nn.Module, store: TrajectoryStore) -> Trajectory:
    """Import a checkpoint as a trajectory with one state (epoch 0) and unknown accuracy (NaN).

    The state is written into `store`, unless it is there, in the dtypes of `network`. The
    state_dict may be nested under another key, such as ``state_dict``, and its names may share a
    prefix, such as ``module.`` (`read_weights`).

    Args:
        source: path of a file, or of a folder with one (`weights_path`), or a name such as
            ``ResNet50_Weights.IMAGENET1K_V1``, whose file is read from torchvision's cache, or
            downloaded into it.
        network: a network of the saved kind; its weights are not used.

    Raises:
        ValueError: there is no such file or name, the file does not hold plain tensors, the tensors
            are of another network (lists all kinds of difference), or a weight is not finite.
    """
    path = weights_path(_file(source))
    contents = file_digest(path, "checkpoint")
    expected = network.state_dict()
    state = read_checkpoint(path, expected)
    return store_states(
        store,
        {"checkpoint": contents, "tensors": kind_of(expected)},
        [state],
        f"the checkpoint {source}",
    )


def kind_of(state: Mapping[str, Tensor]) -> list[list[Any]]:
    """Names and shapes of a network's tensors, as a part of an identity in the store."""
    # Sorted, because the order of tensors in a checkpoint has no meaning.
    return [[name, list(shape)] for name, shape in sorted(shapes(state.items()).items())]


def read_checkpoint(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network in a checkpoint, as `import_checkpoint` reads it.

    Args:
        expected: the state_dict of a network of the saved kind. Its types are those of the result,
            and its counters of batch norm complete an older file.

    Raises:
        ValueError: as `import_checkpoint`.
    """
    weights = read_weights(path)
    for remark in weights.remarks:
        log.info("%s: %s", path, remark)
    return network_state(weights, expected)


def network_state(weights: WeightsFile, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network in a file that was read, as `read_checkpoint` returns it."""
    path = weights.path
    state = _select(path, dict(weights.tensors), expected)
    _check(path, state, expected)
    counters = {name: expected[name] for name in expected if name not in state}
    complete = copy_tensors({**state, **counters}, expected)
    if name := first_non_finite(complete):
        raise ValueError(
            f"{name} in the checkpoint {path} is not finite in {complete[name].dtype}: use the "
            "weights of an earlier epoch, or train the network with a lower learning rate"
        )
    return complete


def _file(source: str) -> Path:
    """The path of a checkpoint; torchvision weights are downloaded if needed."""
    path = Path(source)
    if path.exists() or not is_weights_name(source):
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


def _select(
    path: Path, state: dict[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of the network, without their common prefix; the others are left out and logged.

    Others are left out only if the network is whole: if they are beside it (``model.`` for the
    network, ``criterion.`` for another module), or of modules that no network has.
    """
    prefixes = _prefixes(state, expected)
    if not prefixes:
        return _without_prefix(state, expected)
    prefix = prefixes[0]
    if different := [p for p in prefixes[1:] if not _equal(state, prefix, p, expected)]:
        line = "%s holds other weights of this network under %s: those under %r are used"
        log.warning(line, path, ", ".join(map(repr, different)), prefix)
    network = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    # Copies of the network under a longer prefix, such as module., are left out as well.
    copies = {p + n for p in prefixes[1:] for n in expected if p + n in state}
    beside = {n for n in network if is_foreign(n) or prefix + n in copies} - expected.keys()
    extra = [n for n in network if n not in expected and n not in beside]
    others = [n for n in state if not n.startswith(prefix) or n.removeprefix(prefix) in beside]
    if others:
        log.info("%s: left out beside the network: %s", path, _groups(state, others))
    return {n: t for n, t in network.items() if n in expected or n in extra}


def _prefixes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Every prefix under which the whole network is in `state`, the usual ones first."""
    needed = [n for n in expected if not n.endswith(COUNTER)]
    if not needed:
        return []
    ends = [n for n in state if n == needed[0] or n.endswith(f".{needed[0]}")]
    prefixes = [n[: len(n) - len(needed[0])] for n in ends]
    whole = [
        p for p in prefixes
        if all(p + n in state and state[p + n].shape == expected[n].shape for n in needed)
    ]  # fmt: skip

    def rank(prefix: str) -> tuple[bool, int]:
        return any(part in FOREIGN for part in prefix.split(".")), prefix.count(".")

    return sorted(whole, key=rank)


def _equal(
    state: Mapping[str, Tensor], first: str, second: str, expected: Mapping[str, Tensor]
) -> bool:
    names = [n for n in expected if first + n in state and second + n in state]
    return all(torch.equal(state[first + n], state[second + n]) for n in names)


def is_foreign(name: str) -> bool:
    parts = name.split(".")
    return parts[0] in FOREIGN or parts[-1] in ("total_ops", "total_params")


def _groups(state: Mapping[str, Tensor], names: Iterable[str]) -> str:
    """The tensors by module, with the values of small ones, such as a mean."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0] or name, []).append(name)

    def text(group: str, members: list[str]) -> str:
        small = [n for n in members if 0 < state[n].numel() <= 3]
        values = [f"{n} = {state[n].flatten().tolist()}" for n in small]
        return ", ".join(values) if len(small) == len(members) else f"{group} ({len(members)})"

    texts = [text(group, members) for group, members in groups.items()]
    return ", ".join(texts[:6]) + (f" and {len(texts) - 6} more" if texts[6:] else "")


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
        "missing": [n for n in expected if n not in state and not n.endswith(COUNTER)],
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
