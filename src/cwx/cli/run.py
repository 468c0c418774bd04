"""Runs a study: checks the command line, hands it to Hydra, and runs each job.

Nothing here imports torch before the configuration has been checked, so that help, completion and
errors about settings appear at once.
"""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cwx.cli import resolvers, run_directory
from cwx.cli.arguments import parse_arguments
from cwx.cli.config import hydra_files
from cwx.cli.config.compose import compose_checked, explicit_directory
from cwx.cli.config.groups import configuration_folder, options
from cwx.cli.config.home import expand_home, expand_settings
from cwx.cli.config.scales import unscaled_networks
from cwx.cli.config.unchosen import drop_unchosen
from cwx.cli.failures import exit_with_message, explain_failure, has_lost_rank
from cwx.cli.resolvers import register_resolvers
from cwx.cli.resume import check_launcher, resolve_resume, saved_config_dir
from cwx.cli.signals import end_with_parent, stop_on_signals
from cwx.cli.sweep import command_line
from cwx.cli.sweep.command_line import JobCommands, for_jobs
from cwx.cli.sweep.processes import stop_with_launcher
from cwx.cli.sweep.resources import is_local_rank, is_rank, is_scheduler_rank, rank
from cwx.cli.sweep.subprocess_job import is_requeued, run_in_subprocess
from cwx.errors import UserError
from cwx.storage.paths import below
from cwx.storage.run_files import STATUS
from cwx.storage.run_status import objective, read_status
from cwx.storage.sweeps import FAILED, FINISHED, Job, note_end

log = logging.getLogger(__name__)


def main() -> Path | None:
    """Check the command line, then hand it to Hydra.

    Returns:
        The directory of the last job; ``None`` if none has run in this process.
    """
    stop_with_launcher()
    stop_on_signals()
    end_with_parent()
    register_resolvers()
    try:
        sys.argv[1:], resumed = _prepare(expand_home(sys.argv[1:]))
    except UserError as error:
        exit_with_message(error)

    directories: list[Path] = []
    main_process, entry = os.getpid(), command_line.entry(parse_arguments(sys.argv[1:]))

    @hydra.main(version_base="1.3", config_path=str(configuration_folder()), config_name="run")
    def start(config: DictConfig) -> float | list[float] | None:
        # Again: a launcher may call this in another process.
        register_resolvers()
        directories.append(Path(HydraConfig.get().runtime.output_dir))
        # A DDP rank starts with the command of this process, which would start the whole sweep.
        separate = os.getpid() != main_process or config.trainer.get("devices") != 1
        swept = HydraConfig.get().mode is RunMode.MULTIRUN and not is_scheduler_rank(os.environ)
        return job(config, resumed=resumed, entry=entry if swept and separate else None)

    start()
    return directories[-1] if directories else None


def _prepare(argv: Sequence[str]) -> tuple[list[str], bool]:
    """The checked command line for Hydra, and whether it continues a run or a sweep."""
    arguments = parse_arguments(argv)
    looks = (arguments.help, arguments.hydra_help, arguments.shell_completion, arguments.info)
    if any(looks):
        return list(argv), False
    folder = configuration_folder()
    extra = arguments.config_dir or saved_config_dir(arguments.overrides)
    if extra:
        add_to_import_path(extra)
    request = resolve_resume(folder, arguments.overrides, multirun=arguments.multirun, extra=extra)
    compose_checked(
        folder, request.overrides, multirun=request.multirun, extra=extra, resumed=request.run
    )
    rest = [argument for argument in argv if argument not in arguments.overrides]
    if request.multirun:
        check_launcher(folder, request.overrides, extra=extra)
        rest += [] if arguments.multirun else ["--multirun"]
    if extra and not arguments.config_dir:
        rest += ["--config-dir", extra]
    resumed = bool(request.run or request.sweep)
    if not (arguments.cfg or resumed or is_rank(os.environ)):
        directory = explicit_directory(
            folder, request.overrides, extra=extra, multirun=request.multirun
        )
        if directory is not None:
            run_directory.check(directory, multirun=request.multirun)
    return [*rest, *request.overrides], resumed


def add_to_import_path(folder: str) -> None:
    """Let a `_target_` name a module in a user's configuration folder."""
    path = str(Path(folder).resolve())
    # Last, so that it hides no installed module.
    if path not in sys.path:
        sys.path.append(path)


def job(
    config: DictConfig, *, resumed: bool, entry: Sequence[str] | None = None
) -> float | list[float] | None:
    """Run one study, in the directory that Hydra created for it.

    Args:
        resumed: whether the run or its sweep was started earlier.
        entry: the command that runs it in another process; ``None`` runs it in this one.

    Returns:
        The optimised metrics of a job of a sweep; ``None`` for a single run.
    """
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    swept = hydra_config.mode is RunMode.MULTIRUN
    resumed |= swept and is_requeued(folder, str(hydra_config.job.id), os.environ)
    if swept and resumed:
        state = str(read_status(folder).get("state")) if (folder / STATUS).exists() else None
        resumed = state is not None
        if state == FINISHED:
            log.info("%s has finished already", _relative(folder))
            return objective(folder, _optimized(config))
    try:
        if entry is None:
            if not resumed and _is_first_rank():
                hydra_files.save(folder, config, hydra_config)
            _run(config, folder, resumed=resumed)
        else:
            _run_in_subprocess(Path(_relative(folder)), entry, resumed=resumed)
    except (KeyboardInterrupt, SystemExit):
        if (folder / STATUS).exists():
            log.info("stopped; continue with: python run.py resume=%s", _relative(folder))
        else:
            log.info("stopped before it began")
        raise
    except Exception as error:
        if is_local_rank(os.environ) and has_lost_rank(error):
            # The first process, which started all others, says so.
            sys.exit(1)
        reason = explain_failure(error, _relative(folder))
        if swept:
            if not (folder / STATUS).exists():
                note_end(folder, FAILED, reason, experiment=resolvers.experiment(), seconds=None)
            # The remaining jobs still run.
            raise CompactHydraException(f"cwx: {reason}") from error
        exit_with_message(reason)
    # Only the first rank has the metrics.
    return objective(folder, _optimized(config)) if swept and rank(os.environ) == 0 else None


def _is_first_rank() -> bool:
    return rank(os.environ) == 0 and os.environ.get("LOCAL_RANK", "0") == "0"


def _run_in_subprocess(folder: Path, entry: Sequence[str], *, resumed: bool) -> None:
    config = HydraConfig.get()
    task = tuple(config.overrides.task)
    swept = Job(config.job.num, folder, task, {}, resolvers.experiment())
    run_in_subprocess(swept, JobCommands(entry, for_jobs(config.overrides.hydra)), resumed=resumed)


def _optimized(config: DictConfig) -> Any:
    names = config.optimize
    return list(names) if OmegaConf.is_list(names) else names


def _run(config: DictConfig, folder: Path, *, resumed: bool) -> None:
    from hydra.utils import instantiate

    from cwx.cli.allocator import keep_freed_memory
    from cwx.study.results import Results

    keep_freed_memory()
    quiet()

    resolved: Any = expand_settings(OmegaConf.to_container(config, resolve=True))
    del resolved["optimize"]
    folders = resolvers.configuration_folders()
    if _is_first_rank():
        for line in unscaled_networks(HydraConfig.get().runtime.choices, folders):
            log.info("%s", line)
    configuration = drop_unchosen(resolved, options(folders))
    study = instantiate(configuration, _convert_="all")
    study.run(
        Results(folder),
        configuration,
        experiment=resolvers.experiment(),
        resumed=resumed,
    )


def _relative(path: Path) -> str:
    return str(below(path, Path.cwd()))


def quiet() -> None:
    """Silence Lightning's warnings about deliberate choices of this project."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*in eval mode at the start of training.*",
        # Caused by Lightning itself.
        ".*isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)
