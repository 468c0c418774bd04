"""Finding and reading runs on disk, without torch or Hydra.

A run is a folder with a ``status.json``, or only with Hydra's ``.hydra`` if it never started. A
sweep is a folder with Hydra's ``multirun.yaml`` or our ``sweep.json``; its jobs are runs below it.
``sweep.json`` also lists jobs without a folder. Missing or damaged files leave attributes empty;
they raise no errors, and `Run.damage` names what is damaged.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from os.path import lexists
from pathlib import Path
from typing import Any

from cwx.storage.json_files import read_object
from cwx.storage.locks import is_written
from cwx.storage.run_files import METRICS, MULTIRUN, STATUS, SWEEP
from cwx.storage.run_folders import (
    OVERRIDES,
    is_run,
    read_fault,
    sweep_of,
    walk,
)
from cwx.storage.run_status import read_numbers, read_status, run_seconds
from cwx.storage.yaml_files import read_yaml

# Killed: the status says running, but no process holds the lock.
LOST = "lost"
NOT_STARTED = "not started"
DAMAGED = "damaged"
STATES = ("running", "finished", "failed", "interrupted", LOST, NOT_STARTED, DAMAGED)
# The fields of a status that are texts.
_TEXTS = ("state", "reason", "experiment", "started", "commit")
# Runs started in these years; other dates are damage.
_YEARS = range(2000, 2200)


@dataclass(frozen=True)
class Run:
    """A run on disk.

    Attributes:
        folder: of the run.
        status: the content of its status file; empty if it cannot be read.
        state: one of `STATES`.
        overrides: the overrides that it was started with.
        sweep: the folder of its sweep; ``None`` if it is not a job of a sweep.
        unreadable: the files that cannot be read, a line each.
    """

    folder: Path
    status: Mapping[str, Any]
    state: str
    overrides: tuple[str, ...]
    sweep: Path | None
    unreadable: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Run":
        faults: list[str] = []
        status: Mapping[str, Any] = {}
        if lexists(folder / STATUS):
            try:
                status = read_status(folder)
            except ValueError as error:
                faults.append(read_fault(error.__cause__ or error, STATUS))
        overrides, fault = _read_overrides(folder / OVERRIDES)
        faults += [fault] if fault else []
        state = state_of(folder, status)
        return cls(folder, status, state, overrides, sweep_of(folder), tuple(faults))

    @property
    def experiment(self) -> str:
        return str(self.status.get("experiment") or self.choices.get("experiment") or "")

    @property
    def started(self) -> datetime:
        """The time of its first start, or of the last change of its folder if unknown."""
        moment = _moment(self.status.get("started"))
        if moment is not None:
            return moment
        try:
            return datetime.fromtimestamp(self.folder.stat().st_mtime, UTC)
        except (OSError, ValueError, OverflowError):
            return datetime.fromtimestamp(0, UTC)

    @property
    def seconds(self) -> float | None:
        return run_seconds(self.status)

    @cached_property
    def damage(self) -> tuple[str, ...]:
        """What is damaged in its status, overrides and metrics: a line each."""
        faults = list(self.unreadable)
        for name in _TEXTS:
            value = self.status.get(name)
            if value is not None and not isinstance(value, str):
                faults.append(f"{STATUS}: {name} is not a text")
            elif name == "started" and value is not None and _moment(value) is None:
                faults.append(f"{STATUS}: started is {value[:40]!r}, not a date")
            elif name == "state" and self.status and value not in STATES:
                faults.append(f"{STATUS}: state is {str(value)[:40]!r}")
        if self.status.get("seconds") is not None and self.seconds is None:
            faults.append(f"{STATUS}: seconds is {str(self.status['seconds'])[:40]}")
        return (*faults, *self._metrics[1])

    @property
    def metrics(self) -> Mapping[str, float]:
        """Its finite metrics, by name."""
        return self._metrics[0]

    @cached_property
    def _metrics(self) -> tuple[Mapping[str, float], list[str]]:
        """The finite metrics, and what is damaged in their file."""
        if not lexists(self.folder / METRICS):
            return {}, []
        try:
            numbers, others = read_numbers(self.folder / METRICS)
        except (OSError, ValueError) as error:
            return {}, [read_fault(error, METRICS)]
        faults = [f"{METRICS}: {others[0][:100]} is no number"] if others else []
        return {k: float(v) for k, v in numbers.items() if math.isfinite(v)}, faults

    @property
    def swept(self) -> tuple[str, ...]:
        """The overrides that vary within the sweep; all overrides of a run without a sweep."""
        common = sweep_overrides(self.sweep) if self.sweep else frozenset()
        return tuple(override for override in self.overrides if override not in common)

    @cached_property
    def configuration(self) -> Mapping[str, Any]:
        """Its settings, nested, with unresolved interpolations."""
        return _mapping(_yaml(self.folder / ".hydra" / "config.yaml"))

    @cached_property
    def settings_damage(self) -> tuple[str, ...]:
        """What is damaged in the files of its configuration and choices: a line each.

        They are large, and `damage` does not read them.
        """
        folder = self.folder / ".hydra"
        if not lexists(folder):
            return ()
        faults = []
        for name in ("config.yaml", "hydra.yaml"):
            try:
                content = read_yaml(folder / name)
            except (OSError, ValueError) as error:
                faults.append(read_fault(error, name))
            else:
                if not isinstance(content, Mapping):
                    faults.append(f"{name} has no settings")
        return tuple(faults)

    @cached_property
    def choices(self) -> Mapping[str, Any]:
        """The chosen option of each configuration group."""
        node = _mapping(_yaml(self.folder / ".hydra" / "hydra.yaml"))
        for key in ("hydra", "runtime", "choices"):
            node = _mapping(node.get(key))
        return node


def find_runs(folder: Path) -> list[Run]:
    """All runs in or below `folder`, and the folders that cannot be read; links are not followed.

    A folder that cannot be read is a damaged run, because it may hold one.
    """
    return [
        Run.read(path) if fault is None else Run(path, {}, DAMAGED, (), None, (fault,))
        for path, fault in walk(folder)
    ]


def sweep_overrides(sweep: Path) -> frozenset[str]:
    """The overrides that a sweep was started with, common to all its jobs."""
    return _sweep_overrides(sweep.absolute())


def count_waiting_jobs(sweep: Path) -> int:
    """The number of jobs of a sweep that have not started."""
    folders = [_mapping(job).get("folder") for job in _list(_jobs(sweep).get("jobs"))]
    return sum(isinstance(name, str) and not is_run(sweep / name) for name in folders)


def sweep_damage(sweep: Path) -> list[str]:
    """What is damaged in the files of a sweep: a line each."""
    faults = []
    for name, read in ((MULTIRUN, read_yaml), (SWEEP, read_object)):
        try:
            if lexists(sweep / name):
                read(sweep / name)
        except (OSError, ValueError) as error:
            faults.append(read_fault(error, name))
    return faults


@lru_cache(maxsize=64)
def _sweep_overrides(sweep: Path) -> frozenset[str]:
    node = _mapping(_yaml(sweep / MULTIRUN))
    for key in ("hydra", "overrides"):
        node = _mapping(node.get(key))
    overrides = [*_list(node.get("task")), *_list(_jobs(sweep).get("overrides"))]
    return frozenset(map(str, overrides))


def _jobs(sweep: Path) -> Mapping[str, Any]:
    try:
        return read_object(sweep / SWEEP)
    except (OSError, ValueError):
        return {}


def state_of(folder: Path, status: Mapping[str, Any]) -> str:
    """The state of the run in `folder` with this status: one of `STATES`."""
    if not lexists(folder / STATUS):
        return NOT_STARTED
    state = status.get("state")
    if state not in STATES:
        return DAMAGED
    if state != "running":
        return str(state)
    try:
        return str(state) if is_written(folder) else LOST
    except OSError:
        # The lock belongs to another user and cannot be tested.
        return str(state)


def _moment(started: object) -> datetime | None:
    """A time in ISO format; ``None`` if it is none, or not in `_YEARS`."""
    try:
        moment = datetime.fromisoformat(started) if isinstance(started, str) else None
        moment = moment.astimezone(UTC) if moment is not None else None
    except (ValueError, OverflowError):
        return None
    return moment if moment is not None and moment.year in _YEARS else None


def _read_overrides(file: Path) -> tuple[tuple[str, ...], str]:
    """The overrides in a file, and what is damaged in it."""
    if not lexists(file):
        return (), ""
    try:
        content = read_yaml(file)
    except (OSError, ValueError) as error:
        return (), read_fault(error, file.name)
    if not isinstance(content, list) or not all(isinstance(line, str) for line in content):
        return (), f"{file.name} is not a list of texts"
    return tuple(content), ""


def _yaml(file: Path) -> Any:
    try:
        return read_yaml(file)
    except (OSError, ValueError):
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
