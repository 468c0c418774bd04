"""Readers of the files in a run's folder, each within limits; a missing file reads as empty."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import safe_open

from cwx.data.splits import ImageSet
from cwx.storage.csv_files import CsvTable, read_csv
from cwx.storage.json_files import parse_json
from cwx.storage.quantities import size
from cwx.storage.regular_files import check_regular, open_regular
from cwx.storage.run_status import read_numbers
from cwx.storage.yaml_files import read_yaml

Value = TypeVar("Value")
# Bytes of a table, and cells, that a page takes in.
MAX_TABLE_BYTES, MAX_TABLE_CELLS = 8 * 2**20, 40_000
# Overrides of a run.
MAX_OVERRIDES = 500


def attempt(errors: list[str], what: str, read: Callable[[], Value]) -> Value | None:
    """The result of `read`; ``None``, and an entry in `errors`, if it fails.

    Damaged files make libraries raise errors of any type. None of them may hide the rest of a page.
    """
    try:
        return read()
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error)
        line = " ".join(str(reason).split())
        errors.append(f"{what} cannot be read ({type(error).__name__}: {line[:200]})")
        return None


def check_inside(file: Path, folder: Path) -> None:
    """Check that `file` is a regular file, and that no link leads out of `folder`.

    Raises:
        OSError: the file does not exist or is not regular.
        ValueError: it lies elsewhere.
    """
    check_regular(file)
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ValueError("it is a link to a file outside of the run")


def head(file: Path, limit: int) -> str:
    """The first `limit` bytes of a text, and a last line that says how many are left out."""
    with open_regular(file) as opened:
        content = opened.read(limit)
        rest = os.fstat(opened.fileno()).st_size - len(content)
    text = content.decode(errors="replace")
    return f"{text}\n… {size(rest)} more in {file.name}" if rest > 0 else text


def tail(file: Path, limit: int) -> str:
    """The last `limit` bytes of a text."""
    with open_regular(file) as opened:
        opened.seek(max(0, os.fstat(opened.fileno()).st_size - limit))
        return opened.read(limit).decode(errors="replace")


def metrics(file: Path) -> dict[str, float]:
    """The finite metrics by flat name."""
    numbers, _ = read_numbers(file)
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def table(file: Path, max_cells: int = MAX_TABLE_CELLS) -> CsvTable:
    """The first rows of a table."""
    return read_csv(file, max_bytes=MAX_TABLE_BYTES, max_cells=max_cells)


def paper(file: Path) -> dict[str, float]:
    """The paper's values by metric name."""
    values = {row["name"]: float(row["paper"]) for row in table(file).rows}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def classes(file: Path) -> list[str]:
    """The class names by index."""
    return [row["class"] for row in table(file, 10 * MAX_TABLE_CELLS).rows]


def normalization(file: Path) -> tuple[Any, Any] | None:
    """Mean and standard deviation of the pixels, from the metadata of the sample images."""
    with safe_open(file, framework="pt") as tensors:
        metadata = tensors.metadata() or {}
    if "mean" not in metadata:
        return None
    return parse_json(metadata["mean"]), parse_json(metadata["std"])


def mapping(file: Path) -> dict[str, Any]:
    """A YAML file of settings."""
    content = read_yaml(file)
    if not isinstance(content, dict | None):
        raise ValueError("it holds no settings")
    return {str(name): value for name, value in (content or {}).items()}


def overrides(file: Path) -> dict[str, str]:
    """The overrides of a job: key → value."""
    content = read_yaml(file)
    if not isinstance(content, list | None):
        raise ValueError("it holds no list")
    if len(content or []) > MAX_OVERRIDES:
        raise ValueError(f"it holds more than {MAX_OVERRIDES} overrides")
    return dict(_override(str(text)) for text in content or [] if "=" in str(text))


def choices(file: Path) -> dict[str, Any]:
    """The chosen option of each configuration group."""
    chosen: Any = mapping(file)
    for key in ("hydra", "runtime", "choices"):
        chosen = chosen.get(key, {}) if isinstance(chosen, dict) else {}
    if not isinstance(chosen, dict):
        raise ValueError("it holds no choices")
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


def cut(text: str, length: int) -> str:
    """A text, cut to `length` characters with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _override(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key.lstrip("+~"), value
