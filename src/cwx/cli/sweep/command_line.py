"""The command line of a job of a sweep: our own, with the job's settings and its folder."""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import __main__
from cwx.cli.config.compose import in_folder
from cwx.storage.sweeps import Job

# Of the settings for Hydra, those that are the sweep's and no job's.
_OF_SWEEP = {"launcher", "sweeper", "sweep", "run", "mode"}


@dataclass(frozen=True)
class Invocation:
    """Our own command line.

    Attributes:
        entry: the interpreter, the script and its options.
        hydra: settings for Hydra that hold for every job.
    """

    entry: Sequence[str]
    hydra: Sequence[str]

    def begin(self, job: Job) -> list[str]:
        return [*self.entry, *job.overrides, *self._known(job), in_folder("run", job.folder)]

    def go_on(self, job: Job) -> list[str]:
        return [*self.entry, f"resume={job.folder}", *self._known(job)]

    def _known(self, job: Job) -> list[str]:
        """For settings that refer to the job's number, as they may with every launcher."""
        return [*self.hydra, f"hydra.job.num={job.number}"]


def program() -> list[str]:
    """How this process was started.

    As DDP starts its ranks: by the same script or module, so that they find the same packages.
    """
    spec = __main__.__spec__
    script = [str(Path(sys.argv[0]).absolute())] if spec is None else ["-m", spec.name]
    return [sys.executable, *script]


def entry(flags: argparse.Namespace) -> list[str]:
    """The command that this process was started by, without what it was told to run.

    Args:
        flags: Hydra's options, as this process has them.
    """
    options = {
        "--config-dir": flags.config_dir,
        "--config-path": flags.config_path,
        "--config-name": flags.config_name,
    }
    words = [word for name, value in options.items() if value for word in (name, value)]
    return [*program(), *words]


def for_jobs(overrides: Sequence[str]) -> list[str]:
    """Of a sweep's settings for Hydra, those that hold for each job as well."""
    return [line for line in overrides if re.split("[./=]", line.lstrip("+~"))[1] not in _OF_SWEEP]
