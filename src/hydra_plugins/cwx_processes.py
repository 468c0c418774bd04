"""The launcher of sweeps, in the one package that Hydra takes plugins from.

Hydra imports this whenever it starts: it may import nothing heavy.
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
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from cwx.cli.config.compose import configuration_folder
from cwx.cli.config.validate import experiment_name
from cwx.cli.resume import check_same_job
from cwx.cli.sweep.command_line import Invocation, entry, for_jobs, program
from cwx.cli.sweep.launch import Launch, Settings
from cwx.storage.locks import writing
from cwx.storage.run_files import SWEEP
from cwx.storage.run_status import objective
from cwx.storage.sweeps import FAILED, FINISHED, Job, Sweep

log = logging.getLogger(__name__)


class JobFailedError(CompactHydraException):
    """A job of a sweep did not finish; Hydra prints what it says, and no traceback of its own."""


class Processes(Launcher):
    """Runs each job of a sweep as ``python run.py <overrides>`` in a process of its own.

    Its settings are those of `cwx.cli.sweep.launch.Settings`.
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
        """Run these jobs; an optimising sweeper asks for several such batches.

        Raises:
            SystemExit: they cannot be run, or were interrupted.
        """
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        try:
            with _told_to_end():
                return self._launch(job_overrides, initial_job_idx)
        except (ValueError, OSError) as error:
            # Also a disk that is full, or a folder whose name is too long for it.
            sys.exit(f"cwx: {' '.join(str(error).split())}")
        except KeyboardInterrupt:
            atexit.unregister(_write_page)
            if self._sweep:
                folder = shlex.quote(str(self._sweep.folder))
                log.info("stopped; continue with: python run.py resume=%s", folder)
            raise SystemExit(128 + signal.SIGINT) from None

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
            Invocation(entry(_flags()), for_jobs(self._config.hydra.overrides.hydra)),
            optimize=self._optimize,
            unchanged=_check_same,
        ).run(jobs)
        return self._returns(jobs)

    def _job(self, overrides: list[str], number: int) -> Job:
        config = self._context.config_loader.load_sweep_config(self._config, overrides)
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = number, str(number)
        with _known_to_hydra(config):
            # By the sweep's own configuration, for what names its folder may be swept.
            folder = Path(self._config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
            name = experiment_name(config.hydra.runtime.choices)
        return Job(number, folder, tuple(overrides), self._swept(overrides), name)

    def _swept(self, overrides: Sequence[str]) -> dict[str, str]:
        """Those settings of a job that the command line does not fix for all."""
        parse = OverridesParser.create(config_loader=self._context.config_loader).parse_overrides
        asked = parse(list(self._config.hydra.overrides.task))
        swept = {o.get_key_element() for o in asked if o.is_sweep_override()}
        fixed = {o.get_key_element() for o in asked} - swept
        return {
            override.get_key_element(): override.get_value_string()
            for override in parse(list(overrides))
            if override.get_key_element() not in fixed
        }

    def _open(self, settings: Settings) -> Sweep:
        """The sweep's directory, which is this process's until it ends."""
        with _known_to_hydra(self._config):
            folder = Path(self._config.hydra.sweep.dir)
        if (folder / SWEEP).exists() and not settings.resume:
            raise ValueError(
                f"{folder} holds a sweep already: continue it with resume={folder}, or choose "
                "another hydra.sweep.dir"
            )
        self._held = ExitStack()
        self._held.enter_context(writing(folder))
        # Once, and not after each batch of a sweeper that optimises.
        atexit.register(_write_page, folder)
        overrides = self._config.hydra.overrides
        return Sweep(
            folder,
            started=list(overrides.task),
            hydra=list(overrides.hydra),
            command=shlex.join(sys.argv),
        )

    @property
    def _optimize(self) -> str | list[str] | None:
        names: Any = OmegaConf.select(self._config, "optimize")
        return list(names) if OmegaConf.is_list(names) else names

    def _returns(self, jobs: Sequence[Job]) -> list[JobReturn]:
        failed = [job for job in jobs if job.state != FINISHED]
        # Jobs that were stopped, or not begun, were so for the sake of one that failed.
        causes = [job for job in failed if job.state == FAILED] or failed
        return [self._return(job, causes, of=len(jobs)) for job in jobs]

    def _return(self, job: Job, causes: Sequence[Job], *, of: int) -> JobReturn:
        returned = JobReturn(overrides=list(job.overrides), working_dir=str(job.folder))
        try:
            if job.state != FINISHED:
                cause = job if job in causes else causes[0]
                raise ValueError(
                    f"{len(causes)} of {of} jobs failed; {cause} {cause.state}: {cause.reason} "
                    f"(see {cause.folder}); repeat the command with resume=true to try again"
                )
            returned.return_value = objective(job.folder, self._optimize)
            returned.status = JobStatus.COMPLETED
        except ValueError as error:
            returned.return_value = JobFailedError(f"cwx: {error}")
            returned.status = JobStatus.FAILED
        return returned


def _check_folders(jobs: Sequence[Job]) -> None:
    seen: dict[Path, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.folder, job)
        if other is not job:
            raise ValueError(
                f"{other} and {job} have the folder {job.folder}: let hydra.sweep.subdir differ by "
                "job, as by ${hydra.job.num}"
            )


def _check_same(job: Job) -> None:
    extra = _flags().config_dir
    check_same_job(configuration_folder(), job.folder, job.overrides, extra=extra)


def _flags() -> Any:
    return get_args_parser().parse_args()


def _write_page(folder: Path) -> None:
    """Write a page of all jobs, in a process of its own because that needs torch.

    What goes wrong there is told there: no sweep is worse for having no page.
    """
    subprocess.run([*program(), "report", str(folder)], check=False)


@contextmanager
def _known_to_hydra(config: DictConfig) -> Iterator[None]:
    """Let ``${hydra:…}`` refer to `config`."""
    hydra = HydraConfig.instance()
    earlier = hydra.cfg
    hydra.set_config(config)
    try:
        yield
    finally:
        hydra.cfg = earlier


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Take what ends a process, a scheduler's SIGTERM or a terminal that closes, for a Ctrl-C."""
    earlier = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    # As `nohup` leaves it, who closes the terminal means the sweep to go on.
    taken = [number for number, handler in earlier.items() if handler != signal.SIG_IGN]
    for number in taken:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, earlier[number])
