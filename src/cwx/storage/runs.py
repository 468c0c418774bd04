"""Finding runs on disk and what can be said of them, without torch or Hydra.

A run is a folder with a ``status.json``, or with Hydra's ``.hydra`` of one that never began. A
sweep is a folder with Hydra's ``multirun.yaml`` or our ``sweep.json``, whose jobs are runs below
it; the latter tells of those that have no folder yet. Whatever is missing or damaged costs what it
would have said, not the list.
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
# Killed, or lost with its machine: its status says running, and no process holds it.
LOST = "lost"
NOT_STARTED = "not started"
DAMAGED = "damaged"
STATES = ("running", "finished", "failed", "interrupted", LOST, NOT_STARTED, DAMAGED)
# What reading JSON of others may meet.
_DAMAGE = (OSError, ValueError, TypeError, RecursionError)
# A job's folder may be named by settings with a slash in them.
_DEPTH = 4


@dataclass(frozen=True)
class Run:
    """A run as it lies in its folder.

    Attributes:
        folder: as it was found.
        status: what its status file holds, empty if it has none that can be read.
        state: one of `STATES`.
        overrides: what it was started with.
        sweep: the folder of the sweep that it is a job of.
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
        """When it was first started; when its folder last changed, if it does not say."""
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
        """Of the overrides, those that the sweep varies; all, of a run by itself."""
        common = swept_over(self.sweep) if self.sweep else frozenset()
        return tuple(override for override in self.overrides if override not in common)

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """What was measured, without what was not finite."""
        try:
            found = read_metrics(self.folder)
        except _DAMAGE:
            found = {}
        return {k: float(v) for k, v in found.items() if isinstance(v, int | float)}

    @cached_property
    def configuration(self) -> Mapping[str, Any]:
        """Its settings, nested, with references as they were written."""
        return _mapping(_yaml(self.folder / ".hydra" / "config.yaml"))

    @cached_property
    def choices(self) -> Mapping[str, Any]:
        """What was chosen of each configuration group."""
        found = _mapping(_yaml(self.folder / ".hydra" / "hydra.yaml"))
        for key in ("hydra", "runtime", "choices"):
            found = _mapping(found.get(key))
        return found


def find_runs(folder: Path) -> list[Run]:
    """All runs in or below `folder`; links are not followed."""
    return [Run.read(found) for found in _walk(folder)]


def is_run(folder: Path) -> bool:
    return (folder / STATUS).is_file() or (folder / _OVERRIDES).is_file()


def sweep_of(folder: Path) -> Path | None:
    """The sweep that the run in `folder` is a job of, if it is one."""
    above = folder.absolute().parents[:_DEPTH]
    found = next((parent for parent in above if _is_sweep(parent)), None)
    if found is None:
        return None
    # As the run's own folder was named.
    depth = above.index(found)
    return folder.parents[depth] if depth < len(folder.parents) else found


def swept_over(sweep: Path) -> frozenset[str]:
    """The overrides that a sweep was started with: what its jobs have besides varies."""
    return _swept_over(sweep.absolute())


def waiting(sweep: Path) -> int:
    """How many jobs of a sweep have not begun."""
    folders = [_mapping(job).get("folder") for job in _list(_jobs(sweep).get("jobs"))]
    return sum(isinstance(name, str) and not is_run(sweep / name) for name in folders)


@lru_cache(maxsize=64)
def _swept_over(sweep: Path) -> frozenset[str]:
    found = _mapping(_yaml(sweep / MULTIRUN))
    for key in ("hydra", "overrides"):
        found = _mapping(found.get(key))
    given = [*_list(found.get("task")), *_list(_jobs(sweep).get("overrides"))]
    return frozenset(map(str, given))


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
        inside = sorted(entry.name for entry in os.scandir(folder) if _is_folder(entry))
    except OSError:
        return
    for name in inside:
        yield from _walk(folder / name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)


def state_of(folder: Path, status: Mapping[str, Any]) -> str:
    """How the run stands whose status file holds `status`: one of `STATES`."""
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
        # Its lock is another user's.
        return state


def _yaml(file: Path) -> Any:
    # C's loader is ten times as fast, where it is built.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(file.read_bytes(), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
