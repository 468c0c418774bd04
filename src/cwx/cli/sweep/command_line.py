"""The command line of a job: that of this process, with the job's settings and directory."""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import __main__
from cwx.cli.config.compose import directory_override
from cwx.storage.sweeps import Job

# Hydra's settings that belong to the sweep, not to its jobs.
_OF_SWEEP = {"launcher", "sweeper", "sweep", "run", "mode"}


@dataclass(frozen=True)
class JobCommands:
    """The commands that start and resume the jobs of a sweep.

    Attributes:
        entry: the interpreter, the script and its options.
        hydra: Hydra's settings of every job.
    """

    entry: Sequence[str]
    hydra: Sequence[str]

    def start_command(self, job: Job) -> list[str]:
        return [
            *self.entry,
            *job.overrides,
            *self._hydra_overrides(job),
            directory_override("run", job.folder),
        ]

    def resume_command(self, job: Job) -> list[str]:
        return [*self.entry, f"resume={job.folder}", *self._hydra_overrides(job)]

    def _hydra_overrides(self, job: Job) -> list[str]:
        """With the job's number, to which settings may refer."""
        return [*self.hydra, f"hydra.job.num={job.number}"]


def program() -> list[str]:
    """The interpreter and the script or module of this process.

    Lightning's DDP starts its ranks in the same way, so that all find the same packages.
    """
    spec = __main__.__spec__
    script = [str(Path(sys.argv[0]).absolute())] if spec is None else ["-m", spec.name]
    return [sys.executable, *script]


def entry(arguments: argparse.Namespace) -> list[str]:
    """The command of this process, without settings.

    Args:
        arguments: the parsed command line of this process.
    """
    extra = ["--config-dir", arguments.config_dir] if arguments.config_dir else []
    return [*program(), *extra]


def for_jobs(overrides: Sequence[str]) -> list[str]:
    """A sweep's settings for Hydra without those of the sweep itself."""
    return [line for line in overrides if re.split("[./=]", line.lstrip("+~"))[1] not in _OF_SWEEP]
