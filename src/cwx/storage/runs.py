"""Finding and reading runs on disk, without torch or Hydra.

A run is a folder with a ``status.json``, or only with Hydra's ``.hydra`` if it never started. A
sweep is a folder with Hydra's ``multirun.yaml`` or our ``sweep.json``; its jobs are runs below it.
``sweep.json`` also lists jobs without a folder. Missing or damaged files leave attributes empty;
they raise no errors.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from cwx.storage.locks import is_written
from cwx.storage.run_files import MULTIRUN, STATUS, SWEEP
from cwx.storage.run_status import read_metrics, read_status

_OVERRIDES = Path(".hydra") / "overrides.yaml"
# Killed: the status says running, but no process holds the lock.
LOST = "lost"
NOT_STARTED = "not started"
DAMAGED = "damaged"
STATES = ("running", "finished", "failed", "interrupted", LOST, NOT_STARTED, DAMAGED)
# The errors of reading damaged JSON.
_DAMAGE = (OSError, ValueError, TypeError, RecursionError)
# Job folders may be nested: their names may contain settings with slashes.
_MAX_DEPTH = 4


@dataclass(frozen=True)
class Run:
    """A run on disk.

    Attributes:
        folder: of the run.
        status: the content of its status file; empty if it cannot be read.
        state: one of `STATES`.
        overrides: the overrides that it was started with.
        sweep: the folder of its sweep; ``None`` if it is not a job of a sweep.
    """

    folder: Path
    status: Mapping[str, Any]
    state: str
    overrides: tuple[str, ...]
    sweep: Path | None

    @classmethod
    def read(cls, folder: Path) -> "Run":
        try:
            status = read_status(folder)
        except _DAMAGE:
            status = {}
        overrides = tuple(str(o) for o in _list(_yaml(folder / _OVERRIDES)))
        return cls(folder, status, state_of(folder, status), overrides, sweep_of(folder))

    @property
    def experiment(self) -> str:
        return str(self.status.get("experiment") or self.choices.get("experiment") or "")

    @property
    def started(self) -> datetime:
        """The time of its first start, or of the last change of its folder if unknown."""
        try:
            return datetime.fromisoformat(str(self.status.get("started"))).astimezone(UTC)
        except ValueError:
            return datetime.fromtimestamp(self.folder.stat().st_mtime, UTC)

    @property
    def seconds(self) -> float | None:
        seconds = self.status.get("seconds")
        return float(seconds) if isinstance(seconds, int | float) else None

    @property
    def swept(self) -> tuple[str, ...]:
        """The overrides that vary within the sweep; all overrides of a run without a sweep."""
        common = sweep_overrides(self.sweep) if self.sweep else frozenset()
        return tuple(override for override in self.overrides if override not in common)

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """Its finite metrics, by name."""
        try:
            metrics = read_metrics(self.folder)
        except _DAMAGE:
            metrics = {}
        return {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}

    @cached_property
    def configuration(self) -> Mapping[str, Any]:
        """Its settings, nested, with unresolved interpolations."""
        return _mapping(_yaml(self.folder / ".hydra" / "config.yaml"))

    @cached_property
    def choices(self) -> Mapping[str, Any]:
        """The chosen option of each configuration group."""
        node = _mapping(_yaml(self.folder / ".hydra" / "hydra.yaml"))
        for key in ("hydra", "runtime", "choices"):
            node = _mapping(node.get(key))
        return node


def find_runs(folder: Path) -> list[Run]:
    """All runs in or below `folder`; links are not followed."""
    return [Run.read(run) for run in _walk(folder)]


def is_run(folder: Path) -> bool:
    return (folder / STATUS).is_file() or (folder / _OVERRIDES).is_file()


def sweep_of(folder: Path) -> Path | None:
    """The folder of the sweep of the run in `folder`; ``None`` if it has none."""
    parents = folder.absolute().parents[:_MAX_DEPTH]
    sweep = next((parent for parent in parents if _is_sweep(parent)), None)
    if sweep is None:
        return None
    # Relative if `folder` is relative.
    depth = parents.index(sweep)
    return folder.parents[depth] if depth < len(folder.parents) else sweep


def sweep_overrides(sweep: Path) -> frozenset[str]:
    """The overrides that a sweep was started with, common to all its jobs."""
    return _sweep_overrides(sweep.absolute())


def count_waiting_jobs(sweep: Path) -> int:
    """The number of jobs of a sweep that have not started."""
    folders = [_mapping(job).get("folder") for job in _list(_jobs(sweep).get("jobs"))]
    return sum(isinstance(name, str) and not is_run(sweep / name) for name in folders)


@lru_cache(maxsize=64)
def _sweep_overrides(sweep: Path) -> frozenset[str]:
    node = _mapping(_yaml(sweep / MULTIRUN))
    for key in ("hydra", "overrides"):
        node = _mapping(node.get(key))
    overrides = [*_list(node.get("task")), *_list(_jobs(sweep).get("overrides"))]
    return frozenset(map(str, overrides))


def _is_sweep(folder: Path) -> bool:
    return (folder / MULTIRUN).is_file() or (folder / SWEEP).is_file()


def _jobs(sweep: Path) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads((sweep / SWEEP).read_text()))
    except _DAMAGE:
        return {}


def _walk(folder: Path) -> Iterator[Path]:
    if is_run(folder):
        yield folder
        return
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if _is_folder(entry))
    except OSError:
        return
    for name in names:
        yield from _walk(folder / name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)


def state_of(folder: Path, status: Mapping[str, Any]) -> str:
    """The state of the run in `folder` with this status: one of `STATES`."""
    if not (folder / STATUS).exists():
        return NOT_STARTED
    state = str(status.get("state"))
    if state not in STATES:
        return DAMAGED
    if state != "running":
        return state
    try:
        return state if is_written(folder) else LOST
    except OSError:
        # The lock belongs to another user and cannot be tested.
        return state


def _yaml(file: Path) -> Any:
    # The C loader, if installed, is ten times faster.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(file.read_bytes(), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
