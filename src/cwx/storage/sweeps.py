"""A sweep's directory: a subdirectory for each job, and what became of it.

sweep.json      how it was started, and the state of each job, kept up to date
jobs.csv        a row a job: what was swept, its state, all of its numbers
<job>/          the directory of a run (cwx.study.results)
<job>/output.log  all that its process printed
multirun.yaml   Hydra's configuration of the sweep
"""

import csv
import io
import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cwx.storage.atomic import write_json, write_text
from cwx.storage.locks import is_written, writing
from cwx.storage.paths import below
from cwx.storage.run_files import OUTPUT, STATUS, SWEEP
from cwx.storage.run_status import read_metrics, read_status

JOBS = "jobs.csv"
FINISHED, FAILED, INTERRUPTED = "finished", "failed", "interrupted"
RUNNING, WAITING, NOT_STARTED = "running", "waiting", "not started"


@dataclass
class Job:
    """One job of a sweep.

    Attributes:
        overrides: the settings that it runs with.
        swept: those of them in which jobs may differ, by name.
        experiment: the name that its run goes by.
        state: waiting, running, finished, failed, interrupted or not started.
        reason: why it failed or was interrupted.
        seconds: for which it ran, over all its starts.
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
        """What the run left as its status; empty if it left none."""
        try:
            return read_status(self.folder)
        except ValueError:
            return {}

    def read(self) -> None:
        """Take state, reason and time from the status that the run left, if it left one."""
        if status := self.status():
            self.state, self.reason = str(status.get("state")), status.get("reason")
            self.seconds = status.get("seconds")
            if self.state == RUNNING and not is_written(self.folder):
                self.state, self.reason = INTERRUPTED, "its process was cut off"

    def settle(
        self, code: int, *, seconds: float, stopped: bool, before: Mapping[str, Any]
    ) -> None:
        """Note how its process ended, also in its status where that does not say so itself.

        Args:
            code: its exit code, negative if a signal ended it.
            seconds: for which it ran this time.
            stopped: whether it had been told to stop.
            before: its status when the process began.
        """
        status = self.status()
        says_so = (FINISHED,) if code == 0 else (FAILED, INTERRUPTED)
        if status == before or status.get("state") not in says_so:
            try:
                with writing(self.folder):
                    note_end(
                        self.folder,
                        INTERRUPTED if stopped else FAILED,
                        "stopped with the sweep" if stopped else _death(code, self.output),
                        experiment=self.experiment,
                        seconds=float(before.get("seconds") or 0) + seconds,
                    )
            except ValueError as error:
                # The status is that of somebody else's run.
                self.state, self.reason = FAILED, str(error)
                return
        self.read()


def note_end(
    folder: Path, state: str, reason: str, *, experiment: str | None, seconds: float | None
) -> None:
    """Write the status of a run that could not do so itself; what it had noted of itself stays."""
    try:
        noted = read_status(folder)
    except ValueError:
        noted = {}
    status = {
        "experiment": experiment,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **noted,
        "state": state,
        "reason": reason,
        "seconds": None if seconds is None else round(seconds, 1),
    }
    write_json(folder / STATUS, status)


def _death(code: int, output: Path) -> str:
    """What a process that did not say how it stands died of."""
    last = last_line(output)
    if code < 0:
        name = signal.Signals(-code).name
        cause = f"its process was killed by {name}"
        if name == "SIGKILL":
            cause += ", as the system does when memory runs out"
        return f"{cause}; it last said: {last}" if last else cause
    if code == 0:
        return "its process ended before the run had finished"
    return last or f"its process ended with code {code} and said nothing"


def last_line(output: Path) -> str:
    """The last line that a process printed which is not empty, in short."""
    try:
        with output.open("rb") as file:
            file.seek(max(0, output.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last.removeprefix("cwx: ")[:500]


class Sweep:
    """Writes a sweep's directory.

    Args:
        folder: the directory.
        started: the settings that the sweep was started with, those for Hydra apart.
        hydra: those for Hydra.
        command: the command line.
    """

    def __init__(
        self, folder: Path, *, started: Sequence[str], hydra: Sequence[str], command: str
    ) -> None:
        self.folder = folder
        self.jobs: list[Job] = []
        earlier = read_sweep(folder) if (folder / SWEEP).exists() else {}
        self._head = {
            "command": command,
            "started": earlier.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
            "overrides": list(started),
            "hydra": list(hydra),
        }

    def save(self) -> None:
        """Write how it stands."""
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

    def save_numbers(self) -> None:
        """Write the numbers of all jobs beside each other."""
        write_text(self.folder / JOBS, _csv(self.jobs))


def read_sweep(folder: Path) -> dict[str, Any]:
    """What ``sweep.json`` in `folder` says.

    Raises:
        ValueError: there is none that can be read.
    """
    try:
        return dict(json.loads((folder / SWEEP).read_text()))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is not the folder of a sweep: it has no readable {SWEEP}"
        ) from error


def read_jobs(folder: Path) -> list[Job]:
    """The jobs of the sweep in `folder`, each as it stands by now.

    Raises:
        ValueError: it is not the folder of a sweep.
    """
    jobs = [
        Job(
            number=saved["number"],
            folder=folder / saved["folder"],
            overrides=tuple(saved["overrides"]),
            swept=saved["swept"],
            experiment=saved["experiment"],
            state=saved["state"],
            reason=saved["reason"],
            seconds=saved["seconds"],
        )
        for saved in read_sweep(folder)["jobs"]
    ]
    for job in jobs:
        job.read()
    return jobs


def _csv(jobs: Sequence[Job]) -> str:
    metrics = {job.number: read_metrics(job.folder) for job in jobs if job.state == FINISHED}
    swept = list(dict.fromkeys(name for job in jobs for name in job.swept))
    names = list(dict.fromkeys(name for found in metrics.values() for name in found))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", *swept, "state", "seconds", "reason", *names])
    for job in jobs:
        found = metrics.get(job.number, {})
        settings = [job.swept.get(name, "") for name in swept]
        measured = [found.get(name) for name in names]
        writer.writerow(
            [job.number, *settings, job.state, job.seconds, job.reason, *measured],
        )
    return text.getvalue()
