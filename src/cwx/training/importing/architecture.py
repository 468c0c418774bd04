"""Recognising the architecture of a state_dict by the names and shapes of its tensors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from torch import Tensor

from cwx.errors import printable
from cwx.training.importing import (
    candidates_cwx,
    candidates_published,
    candidates_timm,
    candidates_torchvision,
)
from cwx.training.importing.candidates import (
    Architecture,
    Family,
    Shapes,
    architecture_shapes,
    differences,
)
from cwx.training.importing.checkpoint import COUNTER, is_foreign
from cwx.training.importing.nests import FOREIGN

__all__ = ["Architecture", "nearest", "recognise"]

_FAMILIES: Sequence[Family] = (
    *candidates_torchvision.FAMILIES,
    *candidates_cwx.FAMILIES,
    *candidates_published.FAMILIES,
)
# Bounds for files that were made to take long; the largest known networks have 5,000 tensors.
_MOST_TENSORS, _LONGEST_NAME, _MOST_PARTS, _MOST_PREFIXES = 20_000, 300, 8, 6
# The last part of names of a normalisation of the images.
_MEANS, _STDS = ("mean", "mu", "_mean"), ("std", "sigma", "_std", "var")
_DECODING_ERRORS = (LookupError, ValueError, TypeError, ArithmeticError)


def recognise(tensors: Mapping[str, Tensor], words: Mapping[str, Any]) -> list[Architecture]:
    """The architectures that have exactly these tensors, the most usual first.

    Those in the list have equal shapes: they differ in what weights do not show, such as a stride.
    A common prefix of the names is left out, and so are tensors beside a network (criterion,
    normalisation, copies). Counters of batch norm may be missing.

    Args:
        tensors: a state_dict, perhaps with other tensors beside it.
        words: what the file says besides, such as ``model_name``, ``architecture`` or ``mean``. It
            orders the list; what is wrong or unknown there has no effect.

    Returns:
        An empty list if no known architecture fits, or tensors beside it may belong to it.
    """
    shapes = _shapes(tensors)
    named = candidates_timm.named_family(words)
    return _recognise(shapes, tensors, words, [*named, *_FAMILIES]) or _recognise(
        shapes, tensors, words, candidates_timm.similar_families(shapes)
    )


def _recognise(
    shapes: Shapes,
    tensors: Mapping[str, Tensor],
    words: Mapping[str, Any],
    families: Sequence[Family],
) -> list[Architecture]:
    prefixes = _prefixes(shapes, families)
    for prefix in prefixes:
        inside, beside = _split(shapes, prefix, prefixes, tensors)
        if beside is None:
            continue
        groups = [g for g in _groups(inside, families) if _fits(inside, g[0])]
        if groups:
            architectures = _distinct([a for group in groups for a in group])
            normalization = _normalization(words, tensors, architectures[0].channels)
            result = [
                replace(a, prefix=prefix, beside=beside, normalization=normalization)
                for a in architectures
            ]
            return sorted(result, key=lambda a: not _is_named(a, words))
    return []


def nearest(tensors: Mapping[str, Tensor]) -> str:
    """Which architecture has the most similar tensors, and what differs, in one line."""
    shapes = _shapes(tensors)
    if not shapes:
        return f"{len(tensors):,} tensors, which is no network that is known here"
    best: tuple[float, str] | None = None
    for prefix in _prefixes(shapes, _FAMILIES):
        inside = {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}
        inside = {n: s for n, s in inside.items() if not is_foreign(n)}
        for group in _groups(inside, _FAMILIES):
            try:
                expected = architecture_shapes(group[0])
            except ValueError:
                continue
            kinds = differences(inside, expected)
            fraction = sum(map(len, kinds)) / len(expected)
            if best is None or fraction < best[0]:
                text = _difference_text(inside, expected, kinds, len(shapes) - len(inside))
                best = fraction, f"{group[0].description} comes nearest: {text}"
    if best is not None and best[0] < 1:
        return best[1]
    names = ", ".join(_shown(name) for name in list(shapes)[:3])
    return f"no known architecture has tensors such as {names}"


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by name; empty if it is no state_dict of a size that networks have."""
    if len(tensors) > _MOST_TENSORS:
        return {}
    if not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in tensors.items()):
        return {}
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _prefixes(shapes: Shapes, families: Sequence[Family]) -> list[str]:
    """Prefixes under which names of a known family are, the usual ones first."""
    anchors = {family.names[0] for family in families}
    prefixes: dict[str, None] = {}
    for name in shapes:
        if len(name) > _LONGEST_NAME:
            continue
        parts = name.split(".", _MOST_PARTS)
        for index in range(len(parts)):
            if ".".join(parts[index:]) in anchors:
                prefixes[name[: len(name) - len(".".join(parts[index:]))]] = None

    def rank(prefix: str) -> tuple[bool, int]:
        return any(part in FOREIGN for part in prefix.split(".")), prefix.count(".")

    return sorted(prefixes, key=rank)[:_MOST_PREFIXES]


def _split(
    shapes: Shapes, prefix: str, prefixes: Sequence[str], tensors: Mapping[str, Tensor]
) -> tuple[Shapes, tuple[str, ...] | None]:
    """The shapes under a prefix, and the names beside; ``None`` if these may be of the network."""

    def is_other(name: str) -> bool:
        parts = name.split(".", _MOST_PARTS)
        return (
            is_foreign(name) or _is_statistic(name, tensors[name]) or not FOREIGN.isdisjoint(parts)
        )

    network = {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}
    network = {
        n: s for n, s in network.items()
        if not is_foreign(n) and not _is_statistic(n, tensors[prefix + n])
    }  # fmt: skip
    copies = []
    for other in (p for p in prefixes if p != prefix):
        # A copy within this prefix is no part of the network.
        own = {n: s for n, s in network.items() if not (prefix + n).startswith(other)}
        if own and all(other + n in shapes for n in own if not n.endswith(COUNTER)):
            network = own
            copies.append(other)
    inside = {prefix + n for n in network}
    beside = [n for n in shapes if n not in inside]
    unknown = [n for n in beside if not is_other(n) and not n.startswith(tuple(copies))]
    return network, None if unknown else tuple(beside)


def _is_statistic(name: str, tensor: Tensor) -> bool:
    """Whether it is a mean or standard deviation of the images' channels."""
    return name.rpartition(".")[2] in (*_MEANS, *_STDS) and 0 < tensor.numel() <= 4


def _groups(shapes: Shapes, families: Sequence[Family]) -> Iterator[Sequence[Architecture]]:
    """Candidates of all families whose names are there."""
    for family in families:
        if all(name in shapes for name in family.names):
            try:
                yield from list(family.candidates(shapes))
            except _DECODING_ERRORS:
                continue


def _fits(shapes: Shapes, architecture: Architecture) -> bool:
    try:
        return not any(differences(shapes, architecture_shapes(architecture)))
    except ValueError:
        return False


def _distinct(architectures: Sequence[Architecture]) -> list[Architecture]:
    return list({str(sorted(a.settings.items())): a for a in reversed(architectures)}.values())[
        ::-1
    ]


def _is_named(architecture: Architecture, words: Mapping[str, Any]) -> bool:
    """Whether the file's words name the network of these settings."""
    named = {words.get(key) for key in ("model_name", "architecture") if _is_text(words.get(key))}
    values = {v for v in architecture.settings.values() if isinstance(v, str)}
    return bool(named & (values | {v.rpartition(".")[2] for v in values}))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME


def _normalization(
    words: Mapping[str, Any], tensors: Mapping[str, Tensor], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std that the file's words state, or that are beside the network."""
    pairs = [(words.get("mean"), words.get("std"))]
    for name, tensor in tensors.items():
        if _is_statistic(name, tensor) and name.endswith(_MEANS):
            start = name.rpartition(".")[0]
            stds = [t for n, t in tensors.items() if _is_std_beside(n, start)]
            pairs += [(_values(tensor), _values(t)) for t in stds if _is_statistic("std", t)]
    for mean, std in pairs:
        values = _numbers(mean, channels), _numbers(std, channels)
        if values[0] is not None and values[1] is not None and min(values[1]) > 0:
            return values[0], values[1]
    return None


def _is_std_beside(name: str, start: str) -> bool:
    return name.rpartition(".")[0] == start and name.rpartition(".")[2] in _STDS


def _values(tensor: Tensor) -> list[float]:
    return [] if tensor.is_meta else tensor.flatten().tolist()


def _numbers(values: Any, channels: int) -> tuple[float, ...] | None:
    if not isinstance(values, list | tuple) or len(values) not in (1, channels):
        return None
    if not all(isinstance(v, int | float) and isfinite(v) for v in values):
        return None
    return tuple(map(float, values)) * (channels if len(values) == 1 else 1)


def _difference_text(
    shapes: Shapes, expected: Shapes, kinds: tuple[list[str], list[str], list[str]], outside: int
) -> str:
    missing, extra, changed = kinds
    texts = []
    if missing:
        texts.append(f"{_listed(missing)} missing")
    if extra:
        texts.append(f"{_listed(extra)} unexpected")
    if changed:
        name = changed[0]
        shape = f"{_shown(name)} is {list(shapes[name])} for {list(expected[name])}"
        others = f" (and {len(changed) - 1} other shapes)" if changed[1:] else ""
        texts.append(shape + others)
    if not texts:
        texts.append(f"it has all tensors, but {outside} others beside it may belong to it")
    return "; ".join(texts)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if names[3:] else ""
    return ", ".join(map(_shown, names[:3])) + more


def _shown(name: str) -> str:
    text = printable(name)
    return text if len(text) <= 80 else text[:80] + "…"
