"""The files of a run's folder, each read by itself; what is not there is empty."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from cwx.explanations.images import Explanations

Rows = list[dict[str, str]]

# What reading files of others may meet.
DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError,
    StopIteration, csv.Error, yaml.YAMLError, SafetensorError,
)  # fmt: skip
# A reader in C is ten times as fast, and not everywhere.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def metrics(file: Path) -> dict[str, float]:
    if not file.is_file():
        return {}
    return {
        str(name): value
        for name, value in json.loads(file.read_text()).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def paper(file: Path) -> dict[str, float]:
    return {r["name"]: float(r["paper"]) for r in (rows(file) if file.is_file() else [])}


def classes(file: Path) -> list[str]:
    return [row["class"] for row in (rows(file) if file.is_file() else [])]


def normalized_by(file: Path) -> tuple[Any, Any] | None:
    """Mean and std that samples were kept with."""
    if not file.is_file():
        return None
    with safe_open(file, framework="pt") as opened:
        words = opened.metadata() or {}
    return (json.loads(words["mean"]), json.loads(words["std"])) if "mean" in words else None


def rows(file: Path) -> Rows:
    with file.open(newline="") as lines:
        read = csv.DictReader(lines)
        names = read.fieldnames or []
        return [{name: row.get(name) or "" for name in names} for row in read]


def mapping(file: Path) -> dict[str, Any]:
    read = _yaml(file)
    if not isinstance(read, dict | None):
        raise ValueError(f"{file.name} holds no settings")
    return read or {}


def overrides(file: Path) -> dict[str, str]:
    read = _yaml(file)
    if not isinstance(read, list | None):
        raise ValueError(f"{file.name} holds no list")
    return dict(_override(str(text)) for text in read or [] if "=" in str(text))


def choices(file: Path) -> dict[str, Any]:
    """The option of each configuration group."""
    chosen = mapping(file).get("hydra", {}).get("runtime", {}).get("choices", {})
    return {str(k): v for k, v in chosen.items() if not str(k).startswith("hydra/")}


def samples(file: Path) -> dict[str, Explanations]:
    with safe_open(file, framework="pt") as opened:
        parts = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return {
        name.removesuffix("/images"): Explanations(
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
