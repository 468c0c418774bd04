"""Names and shapes of tensors, and their first difference in words."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


def shapes(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def difference(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> str:
    """The first difference in names or in shapes (or other values), as text; empty without one."""
    for name, shape in expected.items():
        if name not in actual:
            return f"it has no {name}"
        if actual[name] != shape:
            return f"{name} is {actual[name]} there, {shape} here"
    extra = sorted(set(actual) - set(expected))
    return f"it has {extra[0]}, unknown here" if extra else ""
