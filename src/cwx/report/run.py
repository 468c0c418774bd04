"""The contents of a run's folder, read as far as possible: any run gets a page."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from os.path import lexists
from pathlib import Path
from typing import Any, TypeVar

from cwx.data.splits import ImageSet
from cwx.explanations.patterns import MethodOutput
from cwx.explanations.serialisation import read_explanations
from cwx.functional.images import Normalization
from cwx.report import file_readers
from cwx.storage.csv_files import CsvTable
from cwx.storage.run_files import (
    CLASSES,
    EXPLANATIONS,
    LOG,
    METRICS,
    OUTPUT,
    PAPER,
    SAMPLES,
    STATUS,
)
from cwx.storage.run_folders import walk
from cwx.storage.run_status import read_status
from cwx.storage.runs import DAMAGED, Run, state_of

Value = TypeVar("Value")
# What one page takes in: metrics, tables and their cells, methods, bytes of a text and of a log.
MAX_METRICS, MAX_TABLES, MAX_CELLS, MAX_METHODS = 20_000, 200, 150_000, 100
MAX_TEXT, MAX_LOG = 2**18, 2**16
# Cells of each table if the others have used up the cells of the page.
MIN_TABLE_CELLS = 200


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
        left_out: what is too much for a page.
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
    left_out: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """One of `cwx.storage.runs.STATES`, at the time of reading."""
        return str(self.status.get("state") or "damaged")

    def attempt(self, what: str, read: Callable[[], Value]) -> Value | None:
        """The result of `read`; ``None``, and an entry in `read_errors`, if it fails."""
        return file_readers.attempt(self.read_errors, what, read)

    def read(self, name: str, reader: Callable[[Path], Value]) -> Value | None:
        """The content of a file of the run; ``None`` if there is none, or if it is damaged."""
        return self._read(self.folder / name, reader)

    def _read(self, file: Path, reader: Callable[[Path], Value]) -> Value | None:
        def checked() -> Value:
            file_readers.check_inside(file, self.folder)
            return reader(file)

        name = file.relative_to(self.folder).as_posix()
        return self.attempt(name, checked) if lexists(file) else None

    def files(self, pattern: str, limit: int) -> list[Path]:
        """At most `limit` of the run's regular files that match, ordered by name."""
        files = sorted(self.folder.glob(pattern))
        intact = [file for file in files[:limit] if self._read(file, lambda _: True)]
        if len(files) > limit:
            self.left_out.append(f"{len(files) - limit:,} of {len(files):,} files {pattern}")
        return intact

    @property
    def methods(self) -> Mapping[str, Any]:
        """The settings of the methods, by name."""
        methods = self.settings.get("method")
        return methods if isinstance(methods, Mapping) else {}

    @property
    def method_titles(self) -> dict[str, str]:
        """The display names of methods, as configured for the gallery."""
        titles: Any = self.settings
        for key in ("evaluation", "gallery", "titles"):
            titles = titles.get(key) if isinstance(titles, Mapping) else None
        known = titles if isinstance(titles, Mapping) else {}
        return {str(name): str(known[name]) for name in self.methods if name in known}

    @property
    def has_methods(self) -> bool:
        """Whether the study has explanation methods; true if the configuration is missing."""
        # An experiment may configure methods that were not chosen; these have no target.
        parts = self.methods.values()
        targets = (isinstance(part, Mapping) and "_target_" in part for part in parts)
        return not self.settings or any(targets)

    def class_name(self, index: int) -> str:
        return self.classes[index] if 0 <= index < len(self.classes) else f"class {index}"

    def text(self, name: str) -> str:
        """A text file of the run, as far as it fits on a page; empty if there is none."""
        return self.read(name, lambda file: file_readers.head(file, MAX_TEXT)) or ""

    def end_of_text(self, name: str, limit: int) -> str:
        """The last `limit` bytes of a text file of the run; empty if there is none."""
        return self.read(name, lambda file: file_readers.tail(file, limit)) or ""

    def last_log_lines(self, count: int) -> list[str]:
        """The end of the run's log; of its process's output if it has no log."""
        log = self.end_of_text(LOG, MAX_LOG) or self.end_of_text(OUTPUT, MAX_LOG)
        return log.rstrip().splitlines()[-count:]

    def tables(self) -> dict[str, CsvTable]:
        """All tables with rows, by file name without extension; not the table ``paper``."""
        tables: dict[str, CsvTable] = {}
        cells = MAX_CELLS
        for file in self.files("tables/*.csv", MAX_TABLES):
            if file.relative_to(self.folder).as_posix() == PAPER:
                continue
            limit = max(MIN_TABLE_CELLS, min(cells, file_readers.MAX_TABLE_CELLS))
            table = self._read(file, partial(file_readers.table, max_cells=limit))
            if table and table.rows:
                tables[file.stem] = table
                cells -= len(table.rows) * len(table.columns)
        return tables

    def method_outputs(self) -> dict[str, MethodOutput]:
        """The output of each method, including the last good output of diverged methods."""

        def damaged(method: str, fault: str) -> None:
            self.read_errors.append(f"the output of {method} cannot be read ({fault})")

        read = partial(read_explanations, on_damage=damaged)
        saved = self.read(EXPLANATIONS, read) or {}
        # The file is ordered by name, a study by method.
        order = [str(name) for name in self.methods]
        outputs = {name: saved[name] for name in [*(n for n in order if n in saved), *saved]}
        for file in self.files("last-good-*.safetensors", MAX_TABLES):
            name = file.stem.removeprefix("last-good-")
            last_good = self._read(file, read) or {}
            outputs |= {f"{name} before divergence": output for output in last_good.values()}
        if len(outputs) > MAX_METHODS:
            self.left_out.append(f"{len(outputs) - MAX_METHODS:,} of {len(outputs):,} methods")
        return dict(list(outputs.items())[:MAX_METHODS])

    def samples(self) -> dict[str, ImageSet]:
        """Real images by kind (`cwx.data.samples`)."""
        return self.read(SAMPLES, file_readers.samples) or {}

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
    try:
        status = read_status(folder)
    except ValueError as error:
        if not lexists(folder / STATUS):
            raise
        return _read_contents(folder, {"state": DAMAGED, "reason": str(error)})
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
    return [read_run(paths[path]) for path in sorted(paths, key=_natural_order)]


def _run_folders(folder: Path) -> Iterable[Path]:
    """The folders of runs, also inside of others; links are not followed."""
    folders = (path for path, fault in walk(folder, nested=True) if fault is None)
    return (path for path in folders if lexists(path / STATUS))


def _natural_order(path: Path) -> list[tuple[bool, int, str]]:
    return [(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in path.parts]


def _read_contents(folder: Path, status: Mapping[str, Any]) -> RunContents:
    # Collects the read errors of all files below.
    run = RunContents(folder=folder, status=status)
    metrics = run.read(METRICS, file_readers.metrics) or {}
    if len(metrics) > MAX_METRICS:
        run.left_out.append(f"{len(metrics) - MAX_METRICS:,} of {len(metrics):,} metrics")
    contents = RunContents(
        folder=folder,
        status=status,
        metrics=dict(list(metrics.items())[:MAX_METRICS]),
        paper=run.read(PAPER, file_readers.paper) or {},
        classes=run.read(CLASSES, file_readers.classes) or [],
        settings=run.read(".hydra/config.yaml", file_readers.mapping) or {},
        choices=run.read(".hydra/hydra.yaml", file_readers.choices) or {},
        overrides=run.read(".hydra/overrides.yaml", file_readers.overrides) or {},
        read_errors=run.read_errors,
        left_out=run.left_out,
    )
    # Single fields of files that can be read.
    faults = Run.read(folder).damage
    run.read_errors.extend(f for f in faults if f.startswith((f"{STATUS}:", f"{METRICS}:")))
    method = contents.settings.get("method")
    if method is not None and not isinstance(method, Mapping):
        run.read_errors.append(f".hydra/config.yaml: method is a {type(method).__name__}")
    return contents


def _mean_and_std(run: RunContents) -> tuple[Any, Any]:
    saved = run.read(SAMPLES, file_readers.normalization)
    if saved is not None:
        return saved
    data = run.settings["data"]
    return data["mean"], data["std"]


def _per_channel(value: Any, channels: int) -> list[float]:
    values = value if isinstance(value, list) else [value] * channels
    if len(values) != channels:
        raise ValueError(f"{len(values)} values for {channels} channels")
    return [float(v) for v in values]
