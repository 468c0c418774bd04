"""Reading and writing the explanations of several methods in one safetensors file.

A tensor is named ``<method>/<field>``; text fields are in the metadata of the file.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from os.path import lexists
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cwx.explanations.images import Explanations
from cwx.explanations.margins import Margins
from cwx.explanations.patterns import MethodOutput, Patterns, Perturbations, Triggers
from cwx.storage.atomic import write_tensors
from cwx.storage.regular_files import check_regular

# The form of explanations, by a field that only this form has.
_FORMS: dict[str, type[Any]] = {
    "images": Explanations,
    "patterns": Triggers,
    "masks": Patterns,
    "deltas": Perturbations,
    "unit_images": Margins,
}
# Of each tensor: its number of dimensions, and its types if these are no floats.
_DIMENSIONS = {
    "images": 4, "masks": 3, "means": 3, "canvases": 4, "deltas": 4, "patterns": 4, "labels": 1,
    "epsilons": 1, "success": 1, "searched": 1, "inner_learning_rate": 0, "required": 0,
    "unit_images": 4, "start_margins": 2, "alphas": 1,
    "canvas_labels": 1,
}  # fmt: skip
_PER_ITEM = set(_DIMENSIONS) - {"searched", "inner_learning_rate", "required"}
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_DTYPES = {
    **dict.fromkeys(
        ("labels", "canvas_labels"),
        ({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}, "integers"),
    ),
    "searched": ({torch.bool}, "booleans"),
}


def read_explanations(
    file: Path, on_damage: Callable[[str, str], None] | None = None
) -> dict[str, MethodOutput]:
    """The explanations in a file, by the name of the method; empty if there is no file.

    Args:
        on_damage: called with the name and the fault of a method whose tensors are damaged; the
            others are still read. ``None`` raises an error instead.

    Raises:
        ValueError: the file is damaged.
    """
    if not lexists(file):
        return {}
    try:
        check_regular(file)
        with safe_open(file, framework="pt") as opened:
            parts: dict[str, Any] = {n: opened.get_tensor(n) for n in opened.keys()}  # noqa: SIM118
            parts |= opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(_damaged(file, getattr(error, "strerror", None) or error)) from error
    by_method: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        method, _, key = name.rpartition("/")
        by_method.setdefault(method, {})[key] = part
    outputs: dict[str, MethodOutput] = {}
    for method, values in by_method.items():
        try:
            outputs[method] = _output(values)
        except ValueError as error:
            if on_damage is None:
                raise ValueError(_damaged(file, f"{method}: {error}")) from error
            on_damage(method, str(error))
    return outputs


def per_item_fields(output: MethodOutput) -> list[str]:
    """The fields of an output whose first dimension counts its images, patterns or triggers."""
    return [field.name for field in fields(output) if field.name in _PER_ITEM]


def _damaged(file: Path, reason: object) -> str:
    return f"{file} is damaged ({reason}): delete it to run the methods again"


def _output(values: Mapping[str, Any]) -> MethodOutput:
    """The output of one method, checked.

    Raises:
        ValueError: a field is missing or unknown, or has another type or shape than its form says.
    """
    form = next((form for field, form in _FORMS.items() if field in values), None)
    if form is None:
        raise ValueError(f"it has no {', no '.join(_FORMS)}")
    known = {field.name: field.default is MISSING for field in fields(form)}
    if missing := [name for name, required in known.items() if required and name not in values]:
        raise ValueError(f"it has no {missing[0]}")
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"it has {unknown[0][:100]}, which no method writes")
    for name, value in values.items():
        _check_field(name, value)
    main = next(values[name] for name in _FORMS if name in values)
    for name in _PER_ITEM & set(values):
        if len(values[name]) != len(main):
            raise ValueError(f"it has {len(main)} items and {len(values[name])} {name}")
    of_pixels = [values[name] for name in _DIMENSIONS.keys() & values if values[name].ndim >= 3]
    sides = {tuple(part.shape[-2:]) for part in of_pixels}
    if len(sides) > 1:
        raise ValueError(f"its tensors have different image sizes: {sorted(sides)}")
    output: MethodOutput = form(**values)
    return output


def _check_field(name: str, value: Any) -> None:
    if name == "explains":
        if not isinstance(value, str):
            raise ValueError("explains is a tensor, not a text")
        return
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is a text, not a tensor")
    allowed, kind = _DTYPES.get(name, (_FLOATS, "floats"))
    if value.dtype not in allowed:
        raise ValueError(f"{name} is of {value.dtype}, not of {kind}")
    if value.ndim != _DIMENSIONS[name] or 0 in value.shape[1:]:
        raise ValueError(f"{name} has the shape {list(value.shape)}")
    if name.endswith("labels") and bool((value < 0).any()):
        raise ValueError(f"{name} holds {int(value.min())}, no class index")


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
