"""The launcher of sweeps, in the package from which Hydra loads plugins.

Hydra imports this at every start: it must not import torch.
"""

import atexit
import logging
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from cwx.cli.config.groups import configuration_folder
from cwx.cli.config.validate import experiment_name
from cwx.cli.resume import check_same_job
from cwx.cli.sweep.command_line import JobCommands, entry, for_jobs, program
from cwx.cli.sweep.launch import Launch, Settings
from cwx.storage.locks import writing
from cwx.storage.run_files import SWEEP
from cwx.storage.run_status import objective
from cwx.storage.sweeps import FAILED, FINISHED, Job, Sweep

log = logging.getLogger(__name__)


class JobFailedError(CompactHydraException):
    """A job of a sweep did not finish; Hydra prints the message without a traceback."""


class Processes(Launcher):
    """Runs each job of a sweep as ``python run.py <overrides>`` in a subprocess.

    Its settings are `cwx.cli.sweep.launch.Settings`.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self._context, self._config = hydra_context, config
        self._sweep: Sweep | None = None

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run a batch of jobs; an optimising sweeper launches several batches.

        Raises:
            SystemExit: the jobs cannot be run, or were interrupted.
        """
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        received: list[int] = []
        try:
            with _signals_as_interrupt(received):
                return self._launch(job_overrides, initial_job_idx)
        except (ValueError, OSError) as error:
            # OSError: such as a full disk, or a file name that is too long.
            sys.exit(f"cwx: {' '.join(str(error).split())}")
        except KeyboardInterrupt:
            atexit.unregister(_write_page)
            if self._sweep:
                folder = shlex.quote(str(self._sweep.folder))
                log.info("stopped; continue with: python run.py resume=%s", folder)
            raise SystemExit(128 + (received or [signal.SIGINT])[0]) from None

    def _launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        settings = Settings(**self._settings)
        jobs = [
            self._job(list(overrides), initial_job_idx + position)
            for position, overrides in enumerate(job_overrides)
        ]
        _check_folders(jobs)
        if self._sweep is None:
            self._sweep = self._open(settings)
        Launch(
            self._sweep,
            settings,
            JobCommands(entry(_arguments()), for_jobs(self._config.hydra.overrides.hydra)),
            optimize=self._optimize,
            check_unchanged=_check_same,
        ).run(jobs)
        return self._returns(jobs)

    def _job(self, overrides: list[str], number: int) -> Job:
        config = self._context.config_loader.load_sweep_config(self._config, overrides)
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = number, str(number)
        with _as_hydra_config(config):
            # From the sweep's configuration, for a swept setting may be part of its directory.
            folder = Path(self._config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
            name = experiment_name(config.hydra.runtime.choices)
        return Job(number, folder, tuple(overrides), self._swept(overrides), name)

    def _swept(self, overrides: Sequence[str]) -> dict[str, str]:
        """The settings of a job that the command line does not fix for all jobs."""
        parse = OverridesParser.create(config_loader=self._context.config_loader).parse_overrides
        given = parse(list(self._config.hydra.overrides.task))
        swept = {o.get_key_element() for o in given if o.is_sweep_override()}
        fixed = {o.get_key_element() for o in given} - swept
        return {
            override.get_key_element(): override.get_value_string()
            for override in parse(list(overrides))
            if override.get_key_element() not in fixed
        }

    def _open(self, settings: Settings) -> Sweep:
        """Create the sweep's directory, and lock it until this process ends."""
        with _as_hydra_config(self._config):
            folder = Path(self._config.hydra.sweep.dir)
        if (folder / SWEEP).exists() and not settings.resume:
            raise ValueError(
                f"{folder} holds a sweep already: continue it with resume={folder}, or choose "
                "another hydra.sweep.dir"
            )
        self._lock = ExitStack()
        self._lock.enter_context(writing(folder))
        # Once at the end, not after each batch of an optimising sweeper.
        atexit.register(_write_page, folder)
        overrides = self._config.hydra.overrides
        return Sweep(
            folder,
            overrides=list(overrides.task),
            hydra=list(overrides.hydra),
            command=shlex.join(sys.argv),
        )

    @property
    def _optimize(self) -> str | list[str] | None:
        names: Any = OmegaConf.select(self._config, "optimize")
        return list(names) if OmegaConf.is_list(names) else names

    def _returns(self, jobs: Sequence[Job]) -> list[JobReturn]:
        failed = [job for job in jobs if job.state != FINISHED]
        # Jobs that were stopped or not started are consequences of a failed job.
        causes = [job for job in failed if job.state == FAILED] or failed
        return [self._return(job, causes, total=len(jobs)) for job in jobs]

    def _return(self, job: Job, causes: Sequence[Job], *, total: int) -> JobReturn:
        result = JobReturn(overrides=list(job.overrides), working_dir=str(job.folder))
        try:
            if job.state != FINISHED:
                cause = job if job in causes else causes[0]
                raise ValueError(
                    f"{len(causes)} of {total} jobs failed; {cause} {cause.state}: {cause.reason} "
                    f"(see {cause.folder}); repeat the command with resume=true to try again"
                )
            result.return_value = objective(job.folder, self._optimize)
            result.status = JobStatus.COMPLETED
        except ValueError as error:
            result.return_value = JobFailedError(f"cwx: {error}")
            result.status = JobStatus.FAILED
        return result


def _check_folders(jobs: Sequence[Job]) -> None:
    jobs_by_folder: dict[Path, Job] = {}
    for job in jobs:
        other = jobs_by_folder.setdefault(job.folder, job)
        if other is not job:
            raise ValueError(
                f"{other} and {job} have the folder {job.folder}: let hydra.sweep.subdir differ by "
                "job, as by ${hydra.job.num}"
            )


def _check_same(job: Job) -> None:
    extra = _arguments().config_dir
    check_same_job(configuration_folder(), job.folder, job.overrides, extra=extra)


def _arguments() -> Any:
    return get_args_parser().parse_args()


def _write_page(folder: Path) -> None:
    """Write a page of all jobs, in a subprocess because that imports torch.

    What it prints goes into the log: standard output may be for a result, as of ``cwx inspect
    --json``. A sweep succeeds without its page.
    """
    command = [*program(), "report", str(folder)]
    page = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    for line in page.stdout.splitlines():
        log.info("%s", line)


@contextmanager
def _as_hydra_config(config: DictConfig) -> Iterator[None]:
    """Resolve ``${hydra:…}`` from `config`."""
    hydra = HydraConfig.instance()
    earlier = hydra.cfg
    hydra.set_config(config)
    try:
        yield
    finally:
        hydra.cfg = earlier


@contextmanager
def _signals_as_interrupt(received: list[int]) -> Iterator[None]:
    """Treat SIGTERM (of a scheduler) and SIGHUP (of a closed terminal) as Ctrl-C.

    Args:
        received: takes the number of each such signal.
    """
    earlier = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    # `nohup` ignores SIGHUP, so that the sweep goes on without its terminal.
    handled = [number for number, handler in earlier.items() if handler != signal.SIG_IGN]

    def interrupt(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for number in handled:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, earlier[number])
