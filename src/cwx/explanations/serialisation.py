"""Explanations of several methods in one safetensors file.

``<method>/<field>`` names a tensor of a method's explanations; fields that are text are in the
header of the file.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from cwx.explanations.images import Explanations
from cwx.explanations.patterns import MethodOutput, Patterns, Perturbations
from cwx.storage.atomic import write_tensors

# The kinds of explanations, by a field that no other kind has.
_KINDS: dict[str, type[Any]] = {
    "images": Explanations,
    "masks": Patterns,
    "deltas": Perturbations,
}


def read_explanations(file: Path) -> dict[str, MethodOutput]:
    """The explanations in a file, by method, ordered by name; empty if there is no file.

    Raises:
        ValueError: the file is damaged.
    """
    if not file.exists():
        return {}
    try:
        with safe_open(file, framework="pt") as opened:
            parts: dict[str, Any] = {n: opened.get_tensor(n) for n in opened.keys()}  # noqa: SIM118
            parts |= opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{file} is damaged ({error}): delete it, and the methods run again"
        ) from error
    by_method: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        method, _, key = name.rpartition("/")
        by_method.setdefault(method, {})[key] = part
    return {
        method: next(kind for key, kind in _KINDS.items() if key in found)(**found)
        for method, found in by_method.items()
    }


def write_explanations(file: Path, explanations: Mapping[str, MethodOutput]) -> None:
    """Write the explanations of all methods, replacing the file whole."""
    parts = {
        f"{method}/{field.name}": getattr(e, field.name)
        for method, e in explanations.items()
        for field in fields(e)
    }
    tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
    words = {name: part for name, part in parts.items() if isinstance(part, str)}
    write_tensors(file, tensors, words)
