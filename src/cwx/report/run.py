"""The contents of a run's folder, read as far as possible: any run gets a page."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cwx.data.splits import ImageSet
from cwx.explanations.patterns import MethodOutput
from cwx.explanations.serialisation import read_explanations
from cwx.functional.images import Normalization
from cwx.report import file_readers
from cwx.report.file_readers import DAMAGE, Rows
from cwx.storage.run_files import CLASSES, EXPLANATIONS, LOG, OUTPUT, PAPER, SAMPLES, STATUS
from cwx.storage.run_status import read_status
from cwx.storage.runs import state_of

Value = TypeVar("Value")
# Folders inside a run's folder that hold no runs.
_RUN_SUBFOLDERS = {"tables", "figures", "logs", "wandb", "checkpoints", ".hydra"}


@dataclass(frozen=True, kw_only=True)
class RunContents:
    """What a run's folder holds, for pages; what it lacks is empty.

    Attributes:
        folder: of the run.
        status: ``status.json``; its ``state`` is ``damaged`` if the file cannot be read.
        metrics: flat name → number, the finite ones.
        paper: the paper's values, by the same names.
        classes: names by index.
        settings: ``.hydra/config.yaml``, interpolations unresolved.
        choices: the chosen option of each configuration group.
        overrides: key → value, as given for this job.
        read_errors: messages about files that could not be read.
    """

    folder: Path
    status: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)
    classes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    read_errors: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """One of `cwx.storage.runs.STATES`, at the time of reading."""
        return str(self.status.get("state") or "damaged")

    def attempt(self, what: str, read: Callable[[], Value]) -> Value | None:
        """The result of `read`; ``None``, and an entry in `read_errors`, if it fails."""
        try:
            return read()
        except DAMAGE as error:
            line = " ".join(str(error).split())
            self.read_errors.append(f"{what} cannot be read ({type(error).__name__}: {line[:200]})")
            return None

    @property
    def method_titles(self) -> dict[str, str]:
        """The display names of methods, as configured for the gallery."""
        try:
            titles = self.settings["evaluation"]["gallery"]["titles"]
            return {
                str(name): str(titles[name]) for name in self.settings["method"] if name in titles
            }
        except DAMAGE:
            return {}

    @property
    def has_methods(self) -> bool:
        """Whether the study has explanation methods; true if the configuration is missing."""
        methods = self.settings.get("method") or {}
        # An experiment may configure methods that were not chosen; these have no target.
        return not self.settings or any("_target_" in (part or {}) for part in methods.values())

    def class_name(self, index: int) -> str:
        return self.classes[index] if 0 <= index < len(self.classes) else f"class {index}"

    def text(self, name: str) -> str:
        """A text file of the run; empty if there is none."""
        file = self.folder / name
        if not file.is_file():
            return ""
        return self.attempt(name, lambda: file.read_text(errors="replace")) or ""

    def last_log_lines(self, count: int) -> list[str]:
        """The end of the run's log; of its process's output if it has no log."""
        log = self.text(LOG) or self.text(OUTPUT)
        return log.rstrip().splitlines()[-count:]

    def tables(self) -> dict[str, Rows]:
        """All tables with rows, by file name without extension; not the table ``paper``."""
        files = [
            file
            for file in sorted(self.folder.glob("tables/*.csv"))
            if file.relative_to(self.folder).as_posix() != PAPER
        ]
        by_stem = {
            file.stem: self.attempt(f"tables/{file.name}", partial(file_readers.rows, file))
            for file in files
        }
        return {stem: rows for stem, rows in by_stem.items() if rows}

    def method_outputs(self) -> dict[str, MethodOutput]:
        """The output of each method, including the last good output of diverged methods."""
        saved = (
            self.attempt(EXPLANATIONS, partial(read_explanations, self.folder / EXPLANATIONS)) or {}
        )
        # The file is ordered by name, a study by method.
        order = [str(name) for name in self.settings.get("method") or {}]
        outputs = {name: saved[name] for name in [*(n for n in order if n in saved), *saved]}
        for file in sorted(self.folder.glob("last-good-*.safetensors")):
            name = file.stem.removeprefix("last-good-")
            last_good = self.attempt(file.name, partial(read_explanations, file)) or {}
            outputs |= {f"{name} before divergence": output for output in last_good.values()}
        return outputs

    def samples(self) -> dict[str, ImageSet]:
        """Real images by kind (`cwx.data.samples`)."""
        file = self.folder / SAMPLES
        if not file.is_file():
            return {}
        return self.attempt(SAMPLES, lambda: file_readers.samples(file)) or {}

    def normalization(self, channels: int) -> Normalization:
        """The normalisation of pixels; the identity if the run does not state it."""

        def read() -> Normalization:
            mean, std = _mean_and_std(self)
            return Normalization(mean=_per_channel(mean, channels), std=_per_channel(std, channels))

        normalization = self.attempt("the normalisation of pixels", read)
        return normalization or Normalization(mean=[0.0] * channels, std=[1.0] * channels)


def read_run(folder: Path) -> RunContents:
    """The contents of the run in `folder`, in any state.

    Raises:
        ValueError: the folder is not a run.
    """
    status = read_status(folder)
    return _read_contents(folder, {**status, "state": state_of(folder, status)})


def read_runs(folders: Iterable[Path]) -> list[RunContents]:
    """The contents of all runs in and below `folders`, each once, ordered by path.

    Numbers in paths are ordered by value.

    Raises:
        ValueError: a folder does not exist, or there is no run.
    """
    folders = list(folders)
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder: name folders of runs or of sweeps")
    paths = {path.resolve(): path for folder in folders for path in _run_folders(folder)}
    if not paths:
        named = ", ".join(map(str, folders)) or "no folder"
        raise ValueError(f"there is no run (no {STATUS}) in {named}: name folders that hold some")
    return [_read_any_run(paths[path]) for path in sorted(paths, key=_natural_order)]


def _run_folders(folder: Path) -> Iterable[Path]:
    for directory, subfolders, files in os.walk(folder):
        if STATUS in files:
            yield Path(directory)
            subfolders[:] = [name for name in subfolders if name not in _RUN_SUBFOLDERS]


def _natural_order(path: Path) -> list[tuple[bool, int, str]]:
    return [(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in path.parts]


def _read_any_run(folder: Path) -> RunContents:
    try:
        return read_run(folder)
    except ValueError as error:
        return _read_contents(folder, {"state": "damaged", "reason": str(error)})


def _read_contents(folder: Path, status: Mapping[str, Any]) -> RunContents:
    # Collects the read errors of all files below.
    run = RunContents(folder=folder, status=status)
    hydra = folder / ".hydra"

    def read(what: str, reader: Callable[[Path], Value], file: Path) -> Value | None:
        return run.attempt(what, lambda: reader(file))

    return RunContents(
        folder=folder,
        status=status,
        metrics=read("metrics.json", file_readers.metrics, folder / "metrics.json") or {},
        paper=read(PAPER, file_readers.paper, folder / PAPER) or {},
        classes=read(CLASSES, file_readers.classes, folder / CLASSES) or [],
        settings=read("the configuration", file_readers.mapping, hydra / "config.yaml") or {},
        choices=read("the configuration choices", file_readers.choices, hydra / "hydra.yaml") or {},
        overrides=read("the overrides", file_readers.overrides, hydra / "overrides.yaml") or {},
        read_errors=run.read_errors,
    )


def _mean_and_std(run: RunContents) -> tuple[Any, Any]:
    saved = file_readers.normalization(run.folder / SAMPLES)
    if saved is not None:
        return saved
    data = run.settings["data"]
    return data["mean"], data["std"]


def _per_channel(value: Any, channels: int) -> list[float]:
    values = value if isinstance(value, list) else [value] * channels
    if len(values) != channels:
        raise ValueError(f"{len(values)} values for {channels} channels")
    return [float(v) for v in values]
