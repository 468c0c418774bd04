"""The folder of a sweep, with one subfolder per job.

sweep.json        the command of the sweep and the current state of each job
jobs.csv          one row per job: swept settings, state, all metrics
<job>/            the folder of a run (cwx.study.results)
<job>/output.log  the console output of its process
multirun.yaml     Hydra's configuration of the sweep
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cwx.storage.atomic import write_json, write_text
from cwx.storage.json_files import json_type, read_object
from cwx.storage.locks import is_written, writing
from cwx.storage.paths import below
from cwx.storage.regular_files import open_regular
from cwx.storage.run_files import OUTPUT, STATUS, SWEEP
from cwx.storage.run_status import read_metrics, read_status, run_seconds
from cwx.storage.signal_names import signal_name

JOBS = "jobs.csv"
FINISHED, FAILED, INTERRUPTED = "finished", "failed", "interrupted"
RUNNING, WAITING, NOT_STARTED = "running", "waiting", "not started"
# The fields of a sweep's file.
_FIELDS = {"overrides": list, "hydra": list, "started": str, "jobs": list}


@dataclass
class Job:
    """One job of a sweep.

    Attributes:
        number: its index in the sweep.
        folder: of its run.
        overrides: the settings that it runs with.
        swept: the settings that differ between jobs, by name.
        experiment: the name of its run.
        state: waiting, running, finished, failed, interrupted or not started.
        reason: why it failed or was interrupted.
        seconds: its total duration, over all starts.
    """

    number: int
    folder: Path
    overrides: tuple[str, ...]
    swept: Mapping[str, str]
    experiment: str | None = None
    state: str = WAITING
    reason: str | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        settings = " ".join(f"{name}={value}" for name, value in self.swept.items())
        return f"job {self.number} ({settings})" if settings else f"job {self.number}"

    @property
    def output(self) -> Path:
        return self.folder / OUTPUT

    def status(self) -> dict[str, Any]:
        """The content of the run's status file; empty if there is none."""
        try:
            return read_status(self.folder)
        except ValueError:
            return {}

    def read(self) -> None:
        """Update state, reason and duration from the run's status file, if it exists."""
        if status := self.status():
            reason = status.get("reason")
            self.state = str(status.get("state"))
            self.reason = None if reason is None else str(reason)
            self.seconds = run_seconds(status)
            if self.state == RUNNING and not is_written(self.folder):
                self.state, self.reason = INTERRUPTED, "its process was killed"

    def settle(
        self, code: int, *, seconds: float, stopped: bool, before: Mapping[str, Any]
    ) -> None:
        """Record how its process ended, and update its status file if the process did not.

        Args:
            code: the exit code, negative if a signal ended the process.
            seconds: the duration of this start.
            stopped: whether the sweep stopped the process.
            before: the content of its status file when the process started.
        """
        status = self.status()
        expected = (FINISHED,) if code == 0 else (FAILED, INTERRUPTED)
        if status == before or status.get("state") not in expected:
            try:
                with writing(self.folder):
                    note_end(
                        self.folder,
                        INTERRUPTED if stopped else FAILED,
                        "stopped with the sweep" if stopped else _cause_of_death(code, self.output),
                        experiment=self.experiment,
                        seconds=(run_seconds(before) or 0.0) + seconds,
                    )
            except ValueError as error:
                # Another process writes the run's folder now.
                self.state, self.reason = FAILED, str(error)
                return
        self.read()


def note_end(
    folder: Path, state: str, reason: str, *, experiment: str | None, seconds: float | None
) -> None:
    """Write the status of a run whose process could not; other fields of its status stay."""
    try:
        previous = read_status(folder)
    except ValueError:
        previous = {}
    status = {
        "experiment": experiment,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **previous,
        "state": state,
        "reason": reason,
        "seconds": None if seconds is None else round(seconds, 1),
    }
    write_json(folder / STATUS, status)


def _cause_of_death(code: int, output: Path) -> str:
    """The reason why a process ended without writing its status."""
    last = last_line(output)
    if code < 0:
        name = signal_name(-code)
        cause = f"its process was killed by {name}"
        if name == "SIGKILL":
            cause += ", as the system does when memory runs out"
        return f"{cause}; its last output: {last}" if last else cause
    if code == 0:
        return "its process ended before the run finished"
    return last or f"its process ended with code {code} without output"


def last_line(output: Path) -> str:
    """The last non-empty line of a process's output, at most 500 characters."""
    try:
        with open_regular(output) as file:
            file.seek(max(0, output.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last.removeprefix("cwx: ")[:500]


class Sweep:
    """Writes the folder of a sweep.

    Args:
        folder: of the sweep.
        overrides: the overrides of the sweep, without those of Hydra itself.
        hydra: the overrides of Hydra itself.
        command: the command line.
    """

    def __init__(
        self, folder: Path, *, overrides: Sequence[str], hydra: Sequence[str], command: str
    ) -> None:
        self.folder = folder
        self.jobs: list[Job] = []
        earlier = read_sweep(folder) if (folder / SWEEP).exists() else {}
        self._head = {
            "command": command,
            "started": earlier.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
            "overrides": list(overrides),
            "hydra": list(hydra),
        }

    def save(self) -> None:
        """Write the current state of all jobs to ``sweep.json``."""
        jobs = [
            {
                "number": job.number,
                "folder": str(below(job.folder, self.folder)),
                "overrides": list(job.overrides),
                "swept": dict(job.swept),
                "experiment": job.experiment,
                "state": job.state,
                "reason": job.reason,
                "seconds": job.seconds,
            }
            for job in self.jobs
        ]
        write_json(self.folder / SWEEP, {**self._head, "jobs": jobs})

    def save_metrics(self) -> None:
        """Write the metrics of all jobs to ``jobs.csv``."""
        write_text(self.folder / JOBS, _csv(self.jobs))


def read_sweep(folder: Path) -> dict[str, Any]:
    """The content of ``sweep.json`` in `folder`.

    Raises:
        ValueError: the file is missing, cannot be read, or lacks a field.
    """
    try:
        content = read_object(folder / SWEEP)
        for name, kind in _FIELDS.items():
            if not isinstance(content.get(name), kind):
                raise ValueError(f"{name} is {json_type(content.get(name))}")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"{folder} is not the folder of a sweep: it has no readable {SWEEP} ({reason})"
        ) from error
    return content


def read_jobs(folder: Path) -> list[Job]:
    """The jobs of the sweep in `folder`, with their current states.

    Raises:
        ValueError: `folder` is not that of a sweep, or its file is damaged.
    """
    jobs = [_job(folder, saved) for saved in read_sweep(folder)["jobs"]]
    if None in jobs:
        raise ValueError(
            f"{folder / SWEEP} is damaged: a job has no valid number, folder or settings; start "
            "the sweep anew, or continue its jobs one by one (resume=<folder of the job>)"
        )
    intact = [job for job in jobs if job is not None]
    for job in intact:
        job.read()
    return intact


def _job(sweep: Path, saved: Any) -> Job | None:
    """A job in the file of a sweep; ``None`` if it is damaged, or outside of the sweep."""
    job = saved if isinstance(saved, dict) else {}
    number, folder, swept = job.get("number"), job.get("folder"), job.get("swept")
    overrides = job.get("overrides")
    if type(number) is not int or not isinstance(folder, str) or not isinstance(swept, dict):
        return None
    if not isinstance(overrides, list) or Path(folder).is_absolute() or ".." in Path(folder).parts:
        return None
    experiment, reason = (job.get(name) for name in ("experiment", "reason"))
    return Job(
        number=number,
        folder=sweep / folder,
        overrides=tuple(map(str, overrides)),
        swept={name: str(value) for name, value in swept.items()},
        experiment=None if experiment is None else str(experiment),
        state=str(job.get("state")),
        reason=None if reason is None else str(reason),
        seconds=run_seconds(job),
    )


def _csv(jobs: Sequence[Job]) -> str:
    metrics = {job.number: read_metrics(job.folder) for job in jobs if job.state == FINISHED}
    swept = list(dict.fromkeys(name for job in jobs for name in job.swept))
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", *swept, "state", "seconds", "reason", *names])
    for job in jobs:
        values = metrics.get(job.number, {})
        settings = [job.swept.get(name, "") for name in swept]
        columns = [values.get(name) for name in names]
        writer.writerow(
            [job.number, *settings, job.state, job.seconds, job.reason, *columns],
        )
    return text.getvalue()
