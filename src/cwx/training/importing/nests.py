"""Finding a state_dict among what a file of weights nests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cwx.errors import UserError, printable
from cwx.storage.safe_load import describe, is_plain

# The usual keys of the weights, the first of those present is taken.
NESTS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights"),
    *("net_state_dict", "network_state_dict", "model_weights", "model_dict", "params", "module"),
)
# Averages of the weights over the training: taken where nothing else is there.
_AVERAGES = (
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "params_ema"),
    *("model_ema_state_dict", "ema_state", "swa_model", "swa_state_dict"),
)
# Modules beside a network, whose weights do not change its outputs, and counters of profilers.
FOREIGN = frozenset(
    {
        *("criterion", "loss", "loss_fn", "loss_function", "loss_func", "attacker", "attack"),
        *("normalizer", "normalize", "normalization", "metric", "metrics", "accuracy"),
        *("train_metrics", "val_metrics", "test_metrics", "train_acc", "val_acc", "test_acc"),
        *("optimizer", "optimizers", "scheduler", "teacher", "n_averaged", "mu", "sigma"),
        *("total_ops", "total_params", *_AVERAGES),
    }
)
FORM = f"a checkpoint is a state_dict, or holds one as {', '.join(NESTS[:7])}"
# A hostile file may nest without end, or hold itself.
_MOST_LEVELS = 8
_MOST_NAMED = 12


@dataclass
class Nest:
    """A state_dict within the contents of a file.

    Attributes:
        tensors: under their names in the file.
        levels: the mappings around the tensors, the outermost first, and what they hold beside.
        remarks: what was left out, in words.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    levels: list[Mapping[Any, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def open_nests(path: Path, value: Any) -> Nest:
    """Find the state_dict in the contents of a file.

    Args:
        path: of the file, for error messages.
        value: nested containers, as `load_tensors` returns them.

    Raises:
        UserError: there are no named tensors, or they are not dense, unquantised and real.
    """
    nest = Nest()
    beside: list[str] = []
    for _ in range(_MOST_LEVELS):
        value = _as_mapping(value)
        if not isinstance(value, Mapping):
            break
        nest.levels.append(value)
        key = _nest_key(value, nest)
        if key is None:
            value = _joined(value)
            break
        beside += [printable(other) for other in value if other != key]
        value = value[key]
    if beside:
        nest.remarks.append(f"left out beside the weights: {_list(beside)}")
    nest.tensors = _tensors(path, value, nest)
    return nest


def _as_mapping(value: Any) -> Any:
    """A short sequence of mappings and other values as a mapping from their positions."""
    is_sequence = isinstance(value, list | tuple) and len(value) <= _MOST_NAMED
    if is_sequence and any(isinstance(item, Mapping) for item in value):
        return {f"[{index}]": item for index, item in enumerate(value)}
    return value


def _nest_key(value: Mapping[Any, Any], nest: Nest) -> str | None:
    """The key of the weights; ``None`` if they are at this level."""
    usual = [key for key in NESTS if _has_tensors(value.get(key))]
    averages = [key for key in _AVERAGES if _has_tensors(value.get(key))]
    if usual:
        if others := [*usual[1:], *averages]:
            nest.remarks.append(
                f"holds several weights: {usual[0]!r} is used, not {', '.join(map(repr, others))}"
            )
        return usual[0]
    if any(isinstance(tensor, Tensor) and _is_weight(key, tensor) for key, tensor in value.items()):
        return None
    if averages:
        nest.remarks.append(f"holds only averaged weights: {averages[0]!r} is used")
        return averages[0]
    states = _states(value)
    return states[0] if len(states) == 1 else None


def _states(value: Mapping[Any, Any]) -> list[str]:
    """The keys of mappings from names to tensors, other than those of an optimiser."""
    if "param_groups" in value:
        return []
    return [
        key for key, state in value.items()
        if isinstance(key, str) and key not in FOREIGN and not _is_of_training(key)
        and _has_tensors(state)
    ]  # fmt: skip


def _is_of_training(key: str) -> bool:
    return any(part in key.lower() for part in ("optim", "sched", "rng", "scaler", "callback"))


def _joined(value: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The tensors of several nests under joined names, where none is at this level."""
    states = _states(value)
    if len(states) < 2 or any(
        isinstance(tensor, Tensor) and _is_weight(key, tensor) for key, tensor in value.items()
    ):
        return value
    return {
        f"{key}.{name}": tensor
        for key in states
        for name, tensor in _leaves(value[key], _MOST_LEVELS)
    }


def _leaves(value: Mapping[Any, Any], levels: int) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and levels and _has_tensors(item):
            yield from ((f"{key}.{name}", leaf) for name, leaf in _leaves(item, levels - 1))
        else:
            yield str(key), item


def _has_tensors(value: Any, levels: int = 3) -> bool:
    """Whether a mapping holds named tensors at one of its first levels."""
    value = _as_mapping(value)
    if not isinstance(value, Mapping) or "param_groups" in value:
        return False
    return any(
        (isinstance(key, str) and isinstance(item, Tensor))
        or (levels > 0 and _has_tensors(item, levels - 1))
        for key, item in value.items()
    )


def _is_weight(key: Any, tensor: Tensor) -> bool:
    """Whether a tensor is a weight, not a measured number beside nests."""
    return not isinstance(key, str) or "." in key or tensor.ndim > 0


def _tensors(path: Path, value: Any, nest: Nest) -> dict[str, Tensor]:
    """The tensors of one mapping; refuses tensors that are no weights of a plain network."""
    if not isinstance(value, Mapping) or not value:
        raise UserError(f"the checkpoint {path} holds {describe(value)}: {FORM}")
    tensors = {}
    others = []
    for name, tensor in value.items():
        if isinstance(name, str) and is_plain(tensor):
            tensors[name] = tensor
        elif problem := _problem(name, tensor):
            raise UserError(f"the checkpoint {path} {problem}")
        else:
            others.append(printable(name))
    if not tensors:
        raise UserError(
            f"the checkpoint {path} holds no weights, only {_list(others)}{_optimiser(value)}: "
            f"{FORM}"
        )
    if others:
        nest.remarks.append(f"left out, as they are no tensors: {_list(others)}")
    return tensors


def _problem(name: Any, value: Any) -> str:
    """Why a value beside the tensors of a state_dict refuses it, in words."""
    if "_packed_params" in str(name) or (isinstance(value, Tensor) and value.is_quantized):
        return (
            f"holds quantised weights ({printable(name)}): give the state_dict of the network "
            "before its quantisation"
        )
    if not isinstance(value, Tensor):
        return ""
    remedy = {
        "sparse": "save it as a dense tensor (to_dense())",
        "complex": "networks of complex numbers are not read",
        "meta": "save the network after its weights are loaded",
    }
    kind = "meta" if value.is_meta else "complex" if value.is_complex() else "sparse"
    text = f"holds {describe(value)} as {name!r}, not a plain tensor"
    return f"{text}: {FORM if is_plain(value) else remedy[kind]}"


def _optimiser(value: Mapping[Any, Any]) -> str:
    return " (the state of an optimiser)" if "param_groups" in value else ""


def _list(names: list[str]) -> str:
    shown = [name[:100] for name in names[:_MOST_NAMED]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
