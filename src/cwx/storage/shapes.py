"""Shapes of named tensors, and how those of two networks differ."""

from collections.abc import Iterable, Mapping

from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


def shapes(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def difference(expected: Shapes, found: Shapes) -> str:
    """The first tensor that differs, in words; empty if none does."""
    for name, shape in expected.items():
        if name not in found:
            return f"it has no {name}"
        if found[name] != shape:
            return f"{name} is {found[name]} there, {shape} here"
    extra = sorted(set(found) - set(expected))
    return f"it has {extra[0]}, unknown here" if extra else ""
