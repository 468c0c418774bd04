"""The entry: `python run.py` and `cwx`. Hydra and OmegaConf appear here alone.

Nothing here imports torch before the configuration has been checked, so that help, completion
and a misspelt key answer at once.
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
from cwx.cli.arguments import flags as parsed
from cwx.cli.config.compose import compose_checked, configuration_folder, options, place_given
from cwx.cli.config.validate import without_unchosen
from cwx.cli.failures import explained, stop
from cwx.cli.resolvers import register_resolvers
from cwx.cli.resume import asked_for, check_launcher, configured_from
from cwx.cli.sweep import command_line
from cwx.cli.sweep.command_line import Invocation, for_jobs
from cwx.cli.sweep.processes import end_with_launcher
from cwx.cli.sweep.resources import is_rank, rank, ranked
from cwx.cli.sweep.subprocess_job import put_back, run_apart
from cwx.errors import UserError
from cwx.storage.paths import below
from cwx.storage.run_files import STATUS
from cwx.storage.run_status import objective, read_status
from cwx.storage.sweeps import FAILED, FINISHED, Job, note_end

log = logging.getLogger(__name__)


def main() -> None:
    """Check the command line, then hand it to Hydra."""
    end_with_launcher()
    register_resolvers()
    try:
        sys.argv[1:], resumed = _prepared(sys.argv[1:])
    except UserError as error:
        stop(error)

    ours, words = os.getpid(), command_line.entry(parsed(sys.argv[1:]))

    @hydra.main(version_base="1.3", config_path=str(configuration_folder()), config_name="run")
    def start(config: DictConfig) -> float | list[float] | None:
        # Again, for a launcher may call this in a process of its own.
        register_resolvers()
        # A rank of DDP would start by the command of this process, and with it the whole sweep.
        apart = os.getpid() != ours or config.trainer.get("devices") != 1
        swept = HydraConfig.get().mode is RunMode.MULTIRUN and not ranked(os.environ)
        return job(config, resumed=resumed, entry=words if swept and apart else None)

    start()


def _prepared(argv: Sequence[str]) -> tuple[list[str], bool]:
    """The command line for Hydra, checked, and whether it continues a run."""
    flags = parsed(argv)
    if flags.help or flags.hydra_help or flags.shell_completion or flags.info:
        return list(argv), False
    folder, extra = configuration_folder(), flags.config_dir or configured_from(flags.overrides)
    if extra:
        import_from(extra)
    start = asked_for(folder, flags.overrides, multirun=flags.multirun, extra=extra)
    compose_checked(
        folder, start.overrides, multirun=start.multirun, extra=extra, resumed=start.run
    )
    rest = [argument for argument in argv if argument not in flags.overrides]
    if start.multirun:
        check_launcher(folder, start.overrides, extra=extra)
        rest += [] if flags.multirun else ["--multirun"]
    if extra and not flags.config_dir:
        rest += ["--config-dir", extra]
    if not (flags.cfg or start.run or start.sweep or is_rank(os.environ)):
        place = place_given(folder, start.overrides, extra=extra, multirun=start.multirun)
        if place is not None:
            run_directory.check(place, multirun=start.multirun)
    return [*rest, *start.overrides], bool(start.run or start.sweep)


def import_from(folder: str) -> None:
    """Let a `_target_` name what lies beside a user's own configuration."""
    place = str(Path(folder).resolve())
    # Last, so that a module of theirs hides none that is installed.
    if place not in sys.path:
        sys.path.append(place)


def job(
    config: DictConfig, *, resumed: bool, entry: Sequence[str] | None = None
) -> float | list[float] | None:
    """One run, in the directory that Hydra made for it.

    Args:
        resumed: whether the run, or the sweep, is one that began earlier.
        entry: the command by which it runs in a process of its own; ``None``: in this one.

    Returns:
        Among the jobs of a sweep in this process, what is optimised; else nothing.
    """
    known = HydraConfig.get()
    folder = Path(known.runtime.output_dir)
    swept = known.mode is RunMode.MULTIRUN
    resumed |= swept and put_back(folder, str(known.job.id), os.environ)
    if swept and resumed:
        state = read_status(folder)["state"] if (folder / STATUS).exists() else None
        resumed = state is not None
        if state == FINISHED:
            log.info("%s has finished already", _short(folder))
            return objective(folder, _optimized(config))
    try:
        if entry is None:
            _run(config, folder, resumed=resumed)
        else:
            _run_apart(Path(_short(folder)), entry, resumed=resumed)
    except (KeyboardInterrupt, SystemExit):
        if (folder / STATUS).exists():
            log.info("stopped; continue with: python run.py resume=%s", _short(folder))
        else:
            log.info("stopped before it began")
        raise
    except Exception as error:
        why = explained(error, _short(folder))
        if swept:
            if not (folder / STATUS).exists():
                note_end(folder, FAILED, why, experiment=resolvers.experiment(), seconds=None)
            # The jobs that are left have their turn.
            raise CompactHydraException(f"cwx: {why}") from error
        stop(why)
    # What is measured, the first rank alone knows.
    return objective(folder, _optimized(config)) if swept and rank(os.environ) == 0 else None


def _run_apart(folder: Path, entry: Sequence[str], *, resumed: bool) -> None:
    known = HydraConfig.get()
    swept = Job(known.job.num, folder, tuple(known.overrides.task), {}, resolvers.experiment())
    run_apart(swept, Invocation(entry, for_jobs(known.overrides.hydra)), resumed=resumed)


def _optimized(config: DictConfig) -> Any:
    names = config.optimize
    return list(names) if OmegaConf.is_list(names) else names


def _run(config: DictConfig, folder: Path, *, resumed: bool) -> None:
    from hydra.utils import instantiate

    from cwx.cli.allocator import keep_freed_memory
    from cwx.study.results import Results

    keep_freed_memory()
    _quiet()

    resolved: Any = OmegaConf.to_container(config, resolve=True)
    del resolved["optimize"]
    sources = HydraConfig.get().runtime.config_sources
    folders = [Path(source.path) for source in sources if source.schema == "file"]
    plain = without_unchosen(resolved, options(folders))
    study = instantiate(plain, _convert_="all")
    study.run(
        Results(folder),
        plain,
        experiment=resolvers.experiment(),
        resumed=resumed,
    )


def _short(path: Path) -> str:
    return str(below(path, Path.cwd()))


def _quiet() -> None:
    """Silence what Lightning says about choices that this project makes on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*in eval mode at the start of training.*",
        # Lightning's own use of torch's pytrees.
        ".*isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)
