"""Reading and writing the explanations of several methods in one safetensors file.

A tensor is named ``<method>/<field>``; text fields are in the metadata of the file.
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

# The form of explanations, by a field that only this form has.
_FORMS: dict[str, type[Any]] = {
    "images": Explanations,
    "masks": Patterns,
    "deltas": Perturbations,
}


def read_explanations(file: Path) -> dict[str, MethodOutput]:
    """The explanations in a file, by the name of the method; empty if there is no file.

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
            f"{file} is damaged ({error}): delete it to run the methods again"
        ) from error
    by_method: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        method, _, key = name.rpartition("/")
        by_method.setdefault(method, {})[key] = part
    return {
        method: next(form for field, form in _FORMS.items() if field in values)(**values)
        for method, values in by_method.items()
    }


def write_explanations(file: Path, explanations: Mapping[str, MethodOutput]) -> None:
    """Write the explanations of all methods, replacing the file atomically."""
    parts = {
        f"{method}/{field.name}": getattr(output, field.name)
        for method, output in explanations.items()
        for field in fields(output)
    }
    tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
    texts = {name: part for name, part in parts.items() if isinstance(part, str)}
    write_tensors(file, tensors, texts)
