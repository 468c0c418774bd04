"""Runs a job that another launcher, such as submitit, calls in a process of its own.

submitit's process cannot start DDP ranks, for its command line is not ours, and does not end on
Ctrl-C. The job therefore runs in a subprocess, as with our launcher; submitit's process waits for
it and reports its state.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from cwx.cli.sweep import resources
from cwx.cli.sweep.command_line import JobCommands
from cwx.cli.sweep.processes import Process, run_all
from cwx.cli.sweep.resources import rank
from cwx.storage.atomic import write_text
from cwx.storage.run_files import STATUS
from cwx.storage.sweeps import FINISHED, Job

# Seconds for a stopped job to save its state: less than the 30 s that submitit's local launcher
# leaves between its signal and the end.
_GRACE = 25.0
# The file with the id of the submitit job that last wrote a directory; a requeued job keeps its id.
_JOB = Path(".hydra") / "submitit"


def run_in_subprocess(job: Job, commands: JobCommands, *, resumed: bool) -> None:
    """Run a job in a subprocess and wait for its end.

    Args:
        resumed: whether the job's directory may hold a run that was started earlier.

    Raises:
        ValueError: the job did not finish, or its directory holds a run already.
    """
    started = (job.folder / STATUS).exists()
    if started and not resumed:
        raise ValueError(
            f"{job.folder} holds a run already: continue the sweep with resume={job.folder.parent}"
            ", or choose another hydra.sweep.dir"
        )
    before = job.status()
    command = commands.resume_command(job) if started else commands.start_command(job)

    def start(job: Job, environment: Mapping[str, str]) -> Process:
        return Process(command, environment=environment, output=job.output, grace=_GRACE)

    def on_end(job: Job, process: Process, code: int, stopped: bool) -> bool:
        job.settle(code, seconds=process.seconds, stopped=stopped, before=before)
        return job.state == FINISHED

    run_all(
        [job],
        environments=[resources.without_rank_variables(os.environ)],
        start=start,
        on_end=on_end,
        fail_fast=False,
        grace=_GRACE,
    )
    if job.state != FINISHED:
        raise ValueError(f"{job.folder} {job.state}: {job.reason} (see {job.output})")


def is_requeued(folder: Path, number: str, environment: Mapping[str, str]) -> bool:
    """Whether submitit runs the job in `folder` again, after a timeout or a lost node.

    Args:
        number: submitit's id of the job.
    """
    if "SUBMITIT_EXECUTOR" not in environment:
        return False
    file = folder / _JOB
    requeued = file.exists() and file.read_text() == number
    if not requeued and rank(environment) == 0:
        write_text(file, number)
    return requeued
