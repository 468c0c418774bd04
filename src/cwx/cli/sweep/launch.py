"""Runs the jobs of a sweep, each in a subprocess, and logs their progress."""

import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cwx.cli.sweep import resources
from cwx.cli.sweep.processes import Process, run_all
from cwx.cli.sweep.progress import remaining_seconds, table
from cwx.storage.locks import is_written
from cwx.storage.quantities import duration
from cwx.storage.run_files import STATUS
from cwx.storage.sweeps import FINISHED, NOT_STARTED, RUNNING, WAITING, Job, Sweep

log = logging.getLogger(__name__)

# The file without which a job starts anew instead of being resumed.
_SAVED = Path(".hydra") / "overrides.yaml"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of our launcher.

    Args:
        n_jobs: the number of jobs that run at a time.
        gpus_per_job: the number of GPUs of each job; ``None`` divides all GPUs.
        fail_fast: whether the first failure stops all other jobs.
        grace: seconds for a stopped job to save its state.
        resume: whether the sweep's directory may hold jobs already.

    Raises:
        ValueError: a number is out of range.
    """

    n_jobs: int
    gpus_per_job: int | None
    fail_fast: bool
    grace: float
    resume: bool

    def __post_init__(self) -> None:
        if self.n_jobs < 1:
            raise ValueError(f"hydra.launcher.n_jobs is {self.n_jobs}: give 1 or more")
        if self.gpus_per_job is not None and self.gpus_per_job < 0:
            raise ValueError(
                f"hydra.launcher.gpus_per_job is {self.gpus_per_job}: give 0 or more, or null to "
                "divide the GPUs that there are"
            )
        if self.grace < 0:
            raise ValueError(f"hydra.launcher.grace is {self.grace}: give 0 or more seconds")


class Commands(Protocol):
    """The commands that start and resume a job."""

    def start_command(self, job: Job) -> list[str]: ...

    def resume_command(self, job: Job) -> list[str]: ...


class Launch:
    """Runs the unfinished jobs of a sweep.

    Args:
        sweep: the sweep and its directory.
        commands: start and resume a job.
        optimize: the metric, or the metrics, that the final table shows first.
        check_unchanged: raises ValueError if a job's saved run has another configuration.
    """

    def __init__(
        self,
        sweep: Sweep,
        settings: Settings,
        commands: Commands,
        *,
        optimize: str | Sequence[str] | None,
        check_unchanged: Callable[[Job], None],
    ) -> None:
        self._sweep, self._settings, self._commands = sweep, settings, commands
        self._wanted = [optimize] if isinstance(optimize, str) else list(optimize or [])
        self._check_unchanged = check_unchanged
        self._durations: list[float] = []
        self._processes: dict[int, Process] = {}
        self._before: dict[int, Mapping[str, object]] = {}

    def run(self, jobs: Sequence[Job]) -> None:
        """Run those of `jobs` that have not finished, and set the state of each.

        Raises:
            ValueError: too few GPUs, or the directories hold other runs.
            KeyboardInterrupt: after all jobs have stopped.
        """
        if not self._sweep.jobs:
            log.info("this sweep is %s", self._sweep.folder)
        self._sweep.jobs.extend(jobs)
        # Finished jobs count too, so that a resumed sweep gives each job the same resources.
        environments = self._environments(min(self._settings.n_jobs, len(jobs)))
        waiting = self._unfinished(jobs)
        self._sweep.save()
        at_once = f", {len(environments)} at a time" if len(environments) > 1 else ""
        log.info("%d of %d jobs to run%s", len(waiting), len(jobs), at_once)
        try:
            run_all(
                waiting,
                environments=environments,
                start=self._start,
                on_end=self._on_end,
                fail_fast=self._settings.fail_fast,
                grace=self._settings.grace,
            )
        finally:
            for job in waiting:
                if job.state in (WAITING, RUNNING):
                    job.state = NOT_STARTED
                    job.read()
            self._sweep.save()
            self._sweep.save_metrics()
            log.info("\n%s", table(jobs, wanted=self._wanted))

    def _environments(self, at_once: int) -> list[dict[str, str]]:
        count = self._settings.gpus_per_job
        return resources.job_environments(
            os.environ,
            n_jobs=at_once,
            gpus_per_job=count,
            gpus=resources.gpus(os.environ) if at_once > 1 or count is not None else [],
            cores=resources.cores(),
        )

    def _unfinished(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that have not finished."""
        if not self._settings.resume:
            for job in jobs:
                if (job.folder / STATUS).exists():
                    raise ValueError(
                        f"{job.folder} holds a run already: choose another hydra.sweep.dir, or "
                        f"continue that sweep with resume={self._sweep.folder}"
                    )
            return list(jobs)
        for job in jobs:
            if is_written(job.folder):
                log.info("%s still runs from an earlier start: waiting until it has ended", job)
                while is_written(job.folder):
                    time.sleep(0.2)
            if (job.folder / _SAVED).is_file():
                self._check_unchanged(job)
            job.read()
            if job.state == FINISHED:
                log.info("%s has finished already", job)
            else:
                job.state, job.reason = WAITING, None
        return [job for job in jobs if job.state != FINISHED]

    def _start(self, job: Job, environment: Mapping[str, str]) -> Process:
        continued = (job.folder / _SAVED).is_file() and (job.folder / STATUS).is_file()
        if not continued:
            # The job failed before its run started: there is nothing to resume.
            (job.folder / STATUS).unlink(missing_ok=True)
        self._before[job.number] = job.status()
        command = (
            self._commands.resume_command(job) if continued else self._commands.start_command(job)
        )
        log.info("%s %s: %s", job, "goes on" if continued else "begins", job.output)
        log.debug("%s", shlex.join(command))
        process = Process(
            command, environment=environment, output=job.output, grace=self._settings.grace
        )
        job.state = RUNNING
        self._processes[job.number] = process
        self._sweep.save()
        return process

    def _on_end(self, job: Job, process: Process, code: int, stopped: bool) -> bool:
        before = self._before[job.number]
        job.settle(code, seconds=process.seconds, stopped=stopped, before=before)
        del self._processes[job.number]
        self._sweep.save()
        seconds = duration(process.seconds)
        if job.state == FINISHED:
            self._durations.append(process.seconds)
            log.info("%s finished in %s%s", job, seconds, self._remaining())
        else:
            log.info("%s %s after %s: %s", job, job.state, seconds, job.reason)
            log.info("its output is in %s", job.output)
        return job.state == FINISHED

    def _remaining(self) -> str:
        jobs = self._sweep.jobs
        left = remaining_seconds(
            self._durations,
            running=[process.seconds for process in self._processes.values()],
            waiting=sum(job.state == WAITING for job in jobs),
            at_once=self._settings.n_jobs,
        )
        done = sum(job.state == FINISHED for job in jobs)
        about = f", about {duration(left)} left" if left and left >= 1 else ""
        return f"; {done} of {len(jobs)} done{about}"
