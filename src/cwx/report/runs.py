"""What a run left, as far as it can be read: a page is written of any folder that is a run."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from safetensors import SafetensorError, safe_open

from cwx.explanations import Explanations
from cwx.functional.images import Normalization
from cwx.patterns import Found
from cwx.results import CLASSES, EXPLANATIONS, PAPER, SAMPLES, Results
from cwx.status import STATUS, read_status

Kind = TypeVar("Kind")
Rows = list[dict[str, str]]

# What reading files of others may meet.
DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, StopIteration,
    csv.Error, yaml.YAMLError, SafetensorError,
)  # fmt: skip
# What a run's own folder holds besides runs.
_PARTS = {"tables", "figures", "logs", "wandb", "checkpoints", ".hydra"}
# A yaml reader in C is ten times as fast, and not everywhere.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run's folder; what it lacks is empty.

    Attributes:
        folder: of the run.
        status: ``status.json``; its ``state`` is ``damaged`` where that cannot be read.
        numbers: flat name → number, those that are finite.
        paper: what a paper reports, by the same names.
        classes: names by index.
        settings: ``.hydra/config.yaml``, interpolations as they are written there.
        choices: the options chosen of each configuration group.
        overrides: key → value, as given for this job.
        faults: what could not be read, in words.
    """

    folder: Path
    status: Mapping[str, Any]
    numbers: Mapping[str, float] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)
    classes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        return str(self.status.get("state") or "damaged")

    def tried(self, what: str, read: Callable[[], Kind]) -> Kind | None:
        """What `read` returns; nothing, and a fault noted, where that fails."""
        try:
            return read()
        except DAMAGE as error:
            line = " ".join(str(error).split())
            self.faults.append(f"{what} cannot be read ({type(error).__name__}: {line[:200]})")
            return None

    @property
    def titles(self) -> dict[str, str]:
        """The headings that a gallery of the run gives to its methods."""
        try:
            titles = self.settings["evaluation"]["gallery"]["titles"]
            return {
                str(name): str(titles[name]) for name in self.settings["method"] if name in titles
            }
        except DAMAGE:
            return {}

    def class_name(self, index: int) -> str:
        return self.classes[index] if 0 <= index < len(self.classes) else f"class {index}"

    def text(self, name: str) -> str:
        """A text file of the run; nothing where there is none."""
        file = self.folder / name
        if not file.is_file():
            return ""
        return self.tried(name, lambda: file.read_text(errors="replace")) or ""

    def last_lines(self, count: int) -> list[str]:
        """How the run's log ends."""
        return self.text("cwx.log").splitlines()[-count:]

    def tables(self) -> dict[str, Rows]:
        """All tables but those that are told in another way, by stem; they have rows."""
        files = [
            file
            for file in sorted(self.folder.glob("tables/*.csv"))
            if file.relative_to(self.folder).as_posix() != PAPER
        ]
        read = {
            file.stem: self.tried(f"tables/{file.name}", partial(_rows, file)) for file in files
        }
        return {name: rows for name, rows in read.items() if rows}

    def found(self) -> dict[str, Found]:
        """What its methods left, by method, diverged ones included."""
        results = Results(self.folder)
        left = self.tried(EXPLANATIONS, results.explanations) or {}
        # The file orders by name; a study by method.
        order = [str(name) for name in self.settings.get("method") or {}]
        found = {name: left[name] for name in [*(n for n in order if n in left), *left]}
        for file in sorted(self.folder.glob("last-good-*.safetensors")):
            name = file.stem.removeprefix("last-good-")
            last = self.tried(file.name, partial(results.explanations, file.name)) or {}
            found |= {f"{name} before it diverged": e for e in last.values()}
        return found

    def samples(self) -> dict[str, Explanations]:
        """Real images as bytes, by kind (`cwx.samples`)."""
        file = self.folder / SAMPLES
        if not file.is_file():
            return {}
        return self.tried(SAMPLES, lambda: _samples(file)) or {}

    def normalization(self, channels: int) -> Normalization:
        """How pixels were normalised; as if they were not, where the run does not say."""

        def read() -> Normalization:
            mean, std = _normalized_by(self)
            return Normalization(mean=_each(mean, channels), std=_each(std, channels))

        found = self.tried("the normalisation of pixels", read)
        return found or Normalization(mean=[0.0] * channels, std=[1.0] * channels)


def read_run(folder: Path) -> Run:
    """The run in `folder`, in whatever state it is.

    Raises:
        ValueError: the folder is not a run.
    """
    return _read(folder, read_status(folder))


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """The runs in and below `folders`, each once, ordered by path, numbers as numbers.

    Raises:
        ValueError: a folder does not exist, or none holds a run.
    """
    folders = list(folders)
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder: name folders of runs or of sweeps")
    found = {path.resolve(): path for folder in folders for path in _below(folder)}
    if not found:
        named = ", ".join(map(str, folders)) or "no folder"
        raise ValueError(f"there is no run (no {STATUS}) in {named}: name folders that hold some")
    return [_read_any(found[path]) for path in sorted(found, key=_natural)]


def _below(folder: Path) -> Iterable[Path]:
    for place, inner, files in os.walk(folder):
        if STATUS in files:
            yield Path(place)
            inner[:] = [name for name in inner if name not in _PARTS]


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    return [(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in path.parts]


def _read_any(folder: Path) -> Run:
    try:
        return read_run(folder)
    except ValueError as error:
        return _read(folder, {"state": "damaged", "reason": str(error)})


def _read(folder: Path, status: Mapping[str, Any]) -> Run:
    # Faults are noted by a run, so that there must be one before the rest is read.
    run = Run(folder=folder, status=status)
    numbers = run.tried("metrics.json", lambda: _numbers(folder / "metrics.json")) or {}
    paper = run.tried(PAPER, lambda: _paper(folder / PAPER)) or {}
    classes = run.tried(CLASSES, lambda: _classes(folder / CLASSES)) or []
    hydra = folder / ".hydra"
    settings = run.tried("its configuration", lambda: _mapping(hydra / "config.yaml")) or {}
    choices = run.tried("its choices", lambda: _choices(_mapping(hydra / "hydra.yaml"))) or {}
    overrides = run.tried("its overrides", lambda: _overrides(hydra / "overrides.yaml")) or {}
    return Run(
        folder=folder,
        status=status,
        numbers=numbers,
        paper=paper,
        classes=classes,
        settings=settings,
        choices=choices,
        overrides=overrides,
        faults=run.faults,
    )


def _numbers(file: Path) -> dict[str, float]:
    if not file.is_file():
        return {}
    return {
        str(name): value
        for name, value in json.loads(file.read_text()).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _paper(file: Path) -> dict[str, float]:
    return {r["name"]: float(r["paper"]) for r in (_rows(file) if file.is_file() else [])}


def _classes(file: Path) -> list[str]:
    return [row["class"] for row in (_rows(file) if file.is_file() else [])]


def _rows(file: Path) -> Rows:
    with file.open(newline="") as lines:
        rows = csv.DictReader(lines)
        names = rows.fieldnames or []
        return [{name: row.get(name) or "" for name in names} for row in rows]


def _mapping(file: Path) -> dict[str, Any]:
    read = _yaml(file)
    if not isinstance(read, dict | None):
        raise ValueError(f"{file.name} holds no settings")
    return read or {}


def _overrides(file: Path) -> dict[str, str]:
    read = _yaml(file)
    if not isinstance(read, list | None):
        raise ValueError(f"{file.name} holds no list")
    return dict(_override(str(text)) for text in read or [] if "=" in str(text))


def _yaml(file: Path) -> Any:
    return yaml.load(file.read_text(), _LOADER) if file.is_file() else None


def _choices(hydra: Mapping[str, Any]) -> dict[str, Any]:
    chosen = hydra.get("hydra", {}).get("runtime", {}).get("choices", {})
    return {str(k): v for k, v in chosen.items() if not str(k).startswith("hydra/")}


def _override(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key.lstrip("+~"), value


def _samples(file: Path) -> dict[str, Explanations]:
    with safe_open(file, framework="pt") as opened:
        parts = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return {
        name.removesuffix("/images"): Explanations(
            images, parts[name.removesuffix("images") + "labels"]
        )
        for name, images in parts.items()
        if name.endswith("/images")
    }


def _normalized_by(run: Run) -> tuple[Any, Any]:
    file = run.folder / SAMPLES
    if file.is_file():
        with safe_open(file, framework="pt") as opened:
            words = opened.metadata() or {}
        if "mean" in words:
            return json.loads(words["mean"]), json.loads(words["std"])
    data = run.settings["data"]
    return data["mean"], data["std"]


def _each(value: Any, channels: int) -> list[float]:
    values = value if isinstance(value, list) else [value] * channels
    if len(values) != channels:
        raise ValueError(f"{len(values)} values for {channels} channels")
    return [float(v) for v in values]
