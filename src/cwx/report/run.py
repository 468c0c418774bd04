"""What a run left, as far as it can be read: a page is written of any folder that is a run."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cwx.explanations.images import Explanations
from cwx.explanations.patterns import MethodOutput
from cwx.explanations.serialisation import read_explanations
from cwx.functional.images import Normalization
from cwx.report import file_readers
from cwx.report.file_readers import DAMAGE, Rows
from cwx.storage.run_files import CLASSES, EXPLANATIONS, LOG, OUTPUT, PAPER, SAMPLES, STATUS
from cwx.storage.run_status import read_status
from cwx.storage.runs import state_of

Kind = TypeVar("Kind")
# What a run's own folder holds besides runs.
_PARTS = {"tables", "figures", "logs", "wandb", "checkpoints", ".hydra"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run's folder; what it lacks is empty.

    Attributes:
        folder: of the run.
        status: ``status.json``; its ``state`` is ``damaged`` where that cannot be read.
        metrics: flat name → number, those that are finite.
        paper: what a paper reports, by the same names.
        classes: names by index.
        settings: ``.hydra/config.yaml``, interpolations as they are written there.
        choices: the options chosen of each configuration group.
        overrides: key → value, as given for this job.
        faults: what could not be read, in words.
    """

    folder: Path
    status: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)
    classes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """As of `cwx.storage.runs`, by when it was read."""
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

    @property
    def explains(self) -> bool:
        """Whether the study has methods, as far as is known."""
        methods = self.settings.get("method") or {}
        # An experiment may have settings for methods that were not chosen.
        return not self.settings or any("_target_" in (part or {}) for part in methods.values())

    def class_name(self, index: int) -> str:
        return self.classes[index] if 0 <= index < len(self.classes) else f"class {index}"

    def text(self, name: str) -> str:
        """A text file of the run; nothing where there is none."""
        file = self.folder / name
        if not file.is_file():
            return ""
        return self.tried(name, lambda: file.read_text(errors="replace")) or ""

    def last_lines(self, count: int) -> list[str]:
        """How the run's log ends; what its process printed last, where it has none."""
        said = self.text(LOG) or self.text(OUTPUT)
        return said.rstrip().splitlines()[-count:]

    def tables(self) -> dict[str, Rows]:
        """All tables but those that are told in another way, by stem; they have rows."""
        files = [
            file
            for file in sorted(self.folder.glob("tables/*.csv"))
            if file.relative_to(self.folder).as_posix() != PAPER
        ]
        read = {
            file.stem: self.tried(f"tables/{file.name}", partial(file_readers.rows, file))
            for file in files
        }
        return {name: rows for name, rows in read.items() if rows}

    def found(self) -> dict[str, MethodOutput]:
        """What its methods left, by method, diverged ones included."""
        left = (
            self.tried(EXPLANATIONS, partial(read_explanations, self.folder / EXPLANATIONS)) or {}
        )
        # The file orders by name; a study by method.
        order = [str(name) for name in self.settings.get("method") or {}]
        found = {name: left[name] for name in [*(n for n in order if n in left), *left]}
        for file in sorted(self.folder.glob("last-good-*.safetensors")):
            name = file.stem.removeprefix("last-good-")
            last = self.tried(file.name, partial(read_explanations, file)) or {}
            found |= {f"{name} before it diverged": e for e in last.values()}
        return found

    def samples(self) -> dict[str, Explanations]:
        """Real images as bytes, by kind (`cwx.data.samples`)."""
        file = self.folder / SAMPLES
        if not file.is_file():
            return {}
        return self.tried(SAMPLES, lambda: file_readers.samples(file)) or {}

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
    status = read_status(folder)
    return _read(folder, {**status, "state": state_of(folder, status)})


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
    metrics = run.tried("metrics.json", lambda: file_readers.metrics(folder / "metrics.json")) or {}
    paper = run.tried(PAPER, lambda: file_readers.paper(folder / PAPER)) or {}
    classes = run.tried(CLASSES, lambda: file_readers.classes(folder / CLASSES)) or []
    hydra = folder / ".hydra"
    settings = (
        run.tried("its configuration", lambda: file_readers.mapping(hydra / "config.yaml")) or {}
    )
    choices = run.tried("its choices", lambda: file_readers.choices(hydra / "hydra.yaml")) or {}
    overrides = (
        run.tried("its overrides", lambda: file_readers.overrides(hydra / "overrides.yaml")) or {}
    )
    return Run(
        folder=folder,
        status=status,
        metrics=metrics,
        paper=paper,
        classes=classes,
        settings=settings,
        choices=choices,
        overrides=overrides,
        faults=run.faults,
    )


def _normalized_by(run: Run) -> tuple[Any, Any]:
    kept = file_readers.normalized_by(run.folder / SAMPLES)
    if kept is not None:
        return kept
    data = run.settings["data"]
    return data["mean"], data["std"]


def _each(value: Any, channels: int) -> list[float]:
    values = value if isinstance(value, list) else [value] * channels
    if len(values) != channels:
        raise ValueError(f"{len(values)} values for {channels} channels")
    return [float(v) for v in values]
