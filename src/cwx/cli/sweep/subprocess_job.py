"""A job in a process of its own, though a launcher which is not ours calls it in one of its own.

submitit's process can start no ranks of DDP, for its command line is not ours, and takes no Ctrl-C
for an end. What runs in it is the same as with our launcher; it waits, and tells what became of it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from cwx.cli.sweep import resources
from cwx.cli.sweep.command_line import Invocation
from cwx.cli.sweep.processes import Process, run_all
from cwx.cli.sweep.resources import rank
from cwx.storage.run_files import STATUS
from cwx.storage.sweeps import FINISHED, Job

# Seconds to write what it has for a job that is told to stop: less than submitit leaves between
# its signal and the end, which are 30 in its local launcher.
_GRACE = 25.0
# The job of submitit that a folder was last written by: it is the same once it was put back.
_JOB = Path(".hydra") / "submitit"


def run_apart(job: Job, invocation: Invocation, *, resumed: bool) -> None:
    """Run a job to its end.

    Args:
        resumed: whether its folder may hold a run that began earlier.

    Raises:
        ValueError: it did not finish, or the folder holds a run already.
    """
    begun = (job.folder / STATUS).exists()
    if begun and not resumed:
        raise ValueError(
            f"{job.folder} holds a run already: continue the sweep with resume={job.folder.parent}"
            ", or choose another hydra.sweep.dir"
        )
    before = job.status()
    command = invocation.go_on(job) if begun else invocation.begin(job)

    def start(job: Job, environment: Mapping[str, str]) -> Process:
        return Process(command, environment=environment, output=job.output, grace=_GRACE)

    def ended(job: Job, process: Process, code: int, stopped: bool) -> bool:
        job.settle(code, seconds=process.seconds, stopped=stopped, before=before)
        return job.state == FINISHED

    run_all(
        [job],
        environments=[resources.cleaned(os.environ)],
        start=start,
        ended=ended,
        fail_fast=False,
        grace=_GRACE,
    )
    if job.state != FINISHED:
        raise ValueError(f"{job.folder} {job.state}: {job.reason} (see {job.output})")


def put_back(folder: Path, number: str, environment: Mapping[str, str]) -> bool:
    """Whether submitit calls the job in `folder` again, after its time was up or its node was lost.

    Args:
        number: of the job, as submitit counts.
    """
    if "SUBMITIT_EXECUTOR" not in environment:
        return False
    note = folder / _JOB
    again = note.exists() and note.read_text() == number
    if not again and rank(environment) == 0:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(number)
    return again
