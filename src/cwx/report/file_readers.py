"""Readers of the files in a run's folder; a missing file reads as empty."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from cwx.data.splits import ImageSet

Rows = list[dict[str, str]]

# The errors that damaged files may raise.
DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError,
    StopIteration, csv.Error, yaml.YAMLError, SafetensorError,
)  # fmt: skip
# The C loader is ten times as fast, but not available everywhere.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def metrics(file: Path) -> dict[str, float]:
    """The finite metrics by flat name."""
    if not file.is_file():
        return {}
    return {
        str(name): value
        for name, value in json.loads(file.read_text()).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def paper(file: Path) -> dict[str, float]:
    """The paper's values by metric name."""
    return {r["name"]: float(r["paper"]) for r in (rows(file) if file.is_file() else [])}


def classes(file: Path) -> list[str]:
    """The class names by index."""
    return [row["class"] for row in (rows(file) if file.is_file() else [])]


def normalization(file: Path) -> tuple[Any, Any] | None:
    """Mean and standard deviation of the pixels, from the metadata of the sample images."""
    if not file.is_file():
        return None
    with safe_open(file, framework="pt") as tensors:
        metadata = tensors.metadata() or {}
    if "mean" not in metadata:
        return None
    return json.loads(metadata["mean"]), json.loads(metadata["std"])


def rows(file: Path) -> Rows:
    """The rows of a CSV file; cells that a row lacks are empty."""
    with file.open(newline="") as lines:
        reader = csv.DictReader(lines)
        names = reader.fieldnames or []
        return [{name: row.get(name) or "" for name in names} for row in reader]


def mapping(file: Path) -> dict[str, Any]:
    """A YAML file of settings."""
    content = _yaml(file)
    if not isinstance(content, dict | None):
        raise ValueError(f"{file.name} holds no settings")
    return content or {}


def overrides(file: Path) -> dict[str, str]:
    """The overrides of a job: key → value."""
    content = _yaml(file)
    if not isinstance(content, list | None):
        raise ValueError(f"{file.name} holds no list")
    return dict(_override(str(text)) for text in content or [] if "=" in str(text))


def choices(file: Path) -> dict[str, Any]:
    """The chosen option of each configuration group."""
    chosen = mapping(file).get("hydra", {}).get("runtime", {}).get("choices", {})
    return {str(k): v for k, v in chosen.items() if not str(k).startswith("hydra/")}


def samples(file: Path) -> dict[str, ImageSet]:
    """The real images by kind (`cwx.data.samples`)."""
    with safe_open(file, framework="pt") as tensors:
        parts = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    return {
        name.removesuffix("/images"): ImageSet(
            images, parts[name.removesuffix("images") + "labels"]
        )
        for name, images in parts.items()
        if name.endswith("/images")
    }


def _yaml(file: Path) -> Any:
    return yaml.load(file.read_text(), _LOADER) if file.is_file() else None


def _override(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key.lstrip("+~"), value
