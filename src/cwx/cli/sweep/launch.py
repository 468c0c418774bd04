"""Runs the jobs of a sweep, each in a process, and says how they get on."""

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
from cwx.cli.sweep.progress import remaining, table
from cwx.storage.locks import is_written
from cwx.storage.quantities import duration
from cwx.storage.run_files import STATUS
from cwx.storage.sweeps import FINISHED, NOT_STARTED, RUNNING, WAITING, Job, Sweep

log = logging.getLogger(__name__)

# What a run must have left to be continued rather than begun.
_SAVED = Path(".hydra") / "overrides.yaml"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the jobs of a sweep are launched.

    Args:
        n_jobs: how many run at a time.
        gpus_per_job: GPUs that each of them sees; ``None`` divides those that there are.
        fail_fast: whether the first that fails stops all others.
        grace: seconds to write what it has, for a job that is told to stop.
        resume: whether the sweep's directory is expected to hold jobs.

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
    """The commands by which the run of a job is begun and continued."""

    def begin(self, job: Job) -> list[str]: ...

    def go_on(self, job: Job) -> list[str]: ...


class Launch:
    """Runs the jobs that a sweep still needs.

    Args:
        sweep: where they leave what they find.
        commands: by which they run.
        optimize: the number, or the numbers, that the closing table shows first.
        unchanged: refuses to count a job's run whose configuration is another by now.
    """

    def __init__(
        self,
        sweep: Sweep,
        settings: Settings,
        commands: Commands,
        *,
        optimize: str | Sequence[str] | None,
        unchanged: Callable[[Job], None],
    ) -> None:
        self._sweep, self._settings, self._commands = sweep, settings, commands
        self._wanted = [optimize] if isinstance(optimize, str) else list(optimize or [])
        self._unchanged = unchanged
        self._took: list[float] = []
        self._processes: dict[int, Process] = {}
        self._before: dict[int, Mapping[str, object]] = {}

    def run(self, jobs: Sequence[Job]) -> None:
        """Run these jobs, but those that have finished; afterwards each has its state.

        Raises:
            ValueError: more GPUs are asked for than there are, or what is there is of other jobs.
            KeyboardInterrupt: once they have stopped.
        """
        if not self._sweep.jobs:
            log.info("this sweep is %s", self._sweep.folder)
        self._sweep.jobs.extend(jobs)
        # What would lie idle is the jobs' that there are, whichever of them have finished already.
        environments = self._environments(min(self._settings.n_jobs, len(jobs)))
        waiting = self._left(jobs)
        self._sweep.save()
        at_once = f", {len(environments)} at a time" if len(environments) > 1 else ""
        log.info("%d of %d jobs to run%s", len(waiting), len(jobs), at_once)
        try:
            run_all(
                waiting,
                environments=environments,
                start=self._start,
                ended=self._ended,
                fail_fast=self._settings.fail_fast,
                grace=self._settings.grace,
            )
        finally:
            for job in waiting:
                if job.state in (WAITING, RUNNING):
                    job.state = NOT_STARTED
                    job.read()
            self._sweep.save()
            self._sweep.save_numbers()
            log.info("\n%s", table(jobs, wanted=self._wanted))

    def _environments(self, at_once: int) -> list[dict[str, str]]:
        each = self._settings.gpus_per_job
        return resources.shared(
            os.environ,
            n_jobs=at_once,
            gpus_per_job=each,
            gpus=resources.gpus(os.environ) if at_once > 1 or each is not None else [],
            cores=resources.cores(),
        )

    def _left(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that have not finished."""
        if not self._settings.resume:
            for job in jobs:
                if (job.folder / STATUS).exists():
                    raise ValueError(
                        f"{job.folder} holds a run already: choose another hydra.sweep.dir, or "
                        f"continue what lies there with resume={self._sweep.folder}"
                    )
            return list(jobs)
        for job in jobs:
            if is_written(job.folder):
                log.info("%s still runs from an earlier start: waiting until it has ended", job)
                while is_written(job.folder):
                    time.sleep(0.2)
            if (job.folder / _SAVED).is_file():
                self._unchanged(job)
            job.read()
            if job.state == FINISHED:
                log.info("%s has finished already", job)
            else:
                job.state, job.reason = WAITING, None
        return [job for job in jobs if job.state != FINISHED]

    def _start(self, job: Job, environment: Mapping[str, str]) -> Process:
        continued = (job.folder / _SAVED).is_file() and (job.folder / STATUS).is_file()
        if not continued:
            # It came to nothing before its run began: there is nothing to continue.
            (job.folder / STATUS).unlink(missing_ok=True)
        self._before[job.number] = job.status()
        command = self._commands.go_on(job) if continued else self._commands.begin(job)
        log.info("%s %s: %s", job, "goes on" if continued else "begins", job.output)
        log.debug("%s", shlex.join(command))
        process = Process(
            command, environment=environment, output=job.output, grace=self._settings.grace
        )
        job.state = RUNNING
        self._processes[job.number] = process
        self._sweep.save()
        return process

    def _ended(self, job: Job, process: Process, code: int, stopped: bool) -> bool:
        before = self._before[job.number]
        job.settle(code, seconds=process.seconds, stopped=stopped, before=before)
        del self._processes[job.number]
        self._sweep.save()
        took = duration(process.seconds)
        if job.state == FINISHED:
            self._took.append(process.seconds)
            log.info("%s finished in %s%s", job, took, self._outlook())
        else:
            log.info("%s %s after %s: %s", job, job.state, took, job.reason)
            log.info("what it said is in %s", job.output)
        return job.state == FINISHED

    def _outlook(self) -> str:
        jobs = self._sweep.jobs
        left = remaining(
            self._took,
            running=[process.seconds for process in self._processes.values()],
            waiting=sum(job.state == WAITING for job in jobs),
            at_once=self._settings.n_jobs,
        )
        done = sum(job.state == FINISHED for job in jobs)
        about = f", about {duration(left)} left" if left and left >= 1 else ""
        return f"; {done} of {len(jobs)} done{about}"
