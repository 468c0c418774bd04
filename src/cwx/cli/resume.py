"""What ``resume=`` means: which run or sweep is continued, and with which settings."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os.path import lexists
from pathlib import Path
from typing import Any

from cwx.cli.config import hydra_files
from cwx.cli.config.compose import compose_checked, directory_override, sweep_directory
from cwx.cli.config.groups import configuration_folders, options
from cwx.cli.config.hydra_files import SAVED
from cwx.cli.config.interpolations import saved_overrides
from cwx.cli.config.unchosen import drop_unchosen
from cwx.cli.config.validate import check
from cwx.cli.sweep.launch import Settings
from cwx.errors import UserError
from cwx.storage.run_files import MULTIRUN, STATUS, SWEEP
from cwx.storage.sweeps import read_sweep

_LAUNCHER = "hydra_plugins.cwx_processes.Processes"
# Settings that do not change the results of a sweep's jobs.
_WITHOUT_EFFECT = ("hydra.", "hydra/", "optimize=")


@dataclass(frozen=True)
class RunRequest:
    """What the command line starts or continues.

    Attributes:
        overrides: the settings, as Hydra takes them.
        multirun: whether they are the settings of a sweep.
        run: the directory of the run to continue, if any.
        sweep: the directory of the sweep to continue, if any.
    """

    overrides: list[str]
    multirun: bool
    run: Path | None = None
    sweep: Path | None = None


def resolve_resume(
    folder: Path, overrides: Sequence[str], *, multirun: bool, extra: str | None
) -> RunRequest:
    """Replace ``resume=`` by the settings which that run or sweep was started with.

    Args:
        folder: the configuration folder.
        overrides: as on the command line.
        multirun: whether the command line has ``-m``.
        extra: a further configuration folder, from ``--config-dir``.

    Raises:
        UserError: there is no such run or sweep, another version of cwx started it, or other
            settings are given beside ``resume=``.
    """
    resumes = [o for o in overrides if o.startswith("resume=")]
    others = [o for o in overrides if o not in resumes]
    value = resumes[0].removeprefix("resume=").strip("'\"") if resumes else "false"
    if len(resumes) > 1:
        raise UserError(f"resume= is given twice: {' '.join(resumes)}")
    if value == "false":
        return RunRequest(others, multirun)
    if not value:
        raise UserError("resume= is empty: name the folder of a run or of a sweep")
    if value == "true":
        return _resume_latest_sweep(folder, others, multirun=multirun, extra=extra)
    if settings := [o for o in others if not o.startswith(("hydra.", "hydra/"))]:
        raise UserError(
            f"resume= takes the settings that the run was started with: remove {' '.join(settings)}"
        )
    directory = Path(value)
    if _is_sweep(directory):
        return _resume_sweep(folder, directory, others, extra)
    return _resume_run(folder, directory, others, multirun=multirun, extra=extra)


def saved_config_dir(overrides: Sequence[str]) -> str | None:
    """The ``--config-dir`` of the run that ``resume=`` names, if that folder still exists."""
    resumes = [o.removeprefix("resume=").strip("'\"") for o in overrides if o.startswith("resume=")]
    if not resumes or not lexists(Path(resumes[0]) / SAVED / "hydra.yaml"):
        return None
    paths = hydra_files.command_line_sources(Path(resumes[0]))
    return next((path for path in paths if Path(path).is_dir()), None)


def check_launcher(folder: Path, overrides: Sequence[str], *, extra: str | None) -> None:
    """Check the settings of our launcher; other launchers check their own.

    Raises:
        UserError: an unknown setting, or a value that it does not take.
    """
    settings = _launcher(folder, overrides, extra)
    if settings is not None:
        check({**settings, "_target_": "cwx.cli.sweep.launch.Settings"}, "hydra.launcher")
        try:
            Settings(**settings)
        except ValueError as error:
            raise UserError(str(error)) from error


def check_same_job(folder: Path, run: Path, overrides: Sequence[str], *, extra: str | None) -> None:
    """Check that a saved run is the job with these settings.

    Raises:
        UserError: it was started with other settings, or they now compose to another
            configuration.
    """
    before = hydra_files.overrides(run)
    if before != list(overrides):
        raise UserError(
            f"{run} was started with {shlex.join(before)}, not with {shlex.join(overrides)}: give "
            "a sampler a seed to continue what it chose, or start the sweep anew"
        )
    _check_version(folder, run, extra)
    compose_checked(folder, overrides, multirun=False, extra=extra, resumed=run)


def _check_version(folder: Path, run: Path, extra: str | None) -> None:
    known = options(configuration_folders(extra, folder))
    hydra_files.check_version(run, lambda saved: drop_unchosen(saved, known))


def _resume_run(
    folder: Path, run: Path, overrides: Sequence[str], *, multirun: bool, extra: str | None
) -> RunRequest:
    if not _is_run(run):
        raise UserError(
            f"{run} is not the folder of a run: name one that holds {STATUS} and {SAVED}/"
        )
    if multirun:
        raise UserError(f"{run} is the folder of one run, not of a sweep: leave out -m")
    saved = hydra_files.overrides(run)
    _check_version(folder, run, extra)
    return RunRequest([*saved, *overrides, directory_override("run", run)], multirun=False, run=run)


def _resume_latest_sweep(
    folder: Path, overrides: Sequence[str], *, multirun: bool, extra: str | None
) -> RunRequest:
    """The last sweep that the same command started."""
    if not multirun:
        raise UserError(
            "resume=true continues the sweep that the same command started: add -m, or name the "
            "folder of a run (resume=runs/…)"
        )
    directory, _ = sweep_directory(folder, overrides, extra=extra)
    explicit = any(o.startswith("hydra.sweep.dir=") for o in overrides)
    candidates = [directory] if explicit else directory.parent.glob("*/")
    sweeps = sorted(
        ((_saved_settings(sweep), sweep) for sweep in candidates if _is_sweep(sweep)),
        key=lambda pair: str(pair[0]["started"]),
    )
    for saved, sweep in reversed(sweeps):
        if _effective(saved["overrides"]) == _effective(overrides):
            return _resume_sweep(folder, sweep, overrides, extra)
    where = directory if explicit else directory.parent
    last = f"; the last one there, {sweeps[-1][1]}, was started with " if sweeps else ""
    last += shlex.join(sweeps[-1][0]["overrides"]) if sweeps else ""
    raise UserError(
        f"no sweep in {where} was started with these settings: leave out resume=true to start it, "
        f"or name the sweep's folder (resume=<folder>){last}"
    )


def _is_run(directory: Path) -> bool:
    return (directory / SAVED).is_dir() and (directory / STATUS).is_file()


def _is_sweep(directory: Path) -> bool:
    return (directory / SWEEP).is_file() or (directory / MULTIRUN).is_file()


def _saved_settings(sweep: Path) -> dict[str, Any]:
    """The settings and the start time of a sweep; from Hydra's file if another launcher ran it."""
    if (sweep / SWEEP).is_file():
        return _read_sweep(sweep)
    overrides = hydra_files.sweep_overrides(sweep / MULTIRUN)
    started = datetime.fromtimestamp((sweep / MULTIRUN).stat().st_mtime, UTC).isoformat()
    return {"overrides": overrides["task"], "hydra": overrides["hydra"], "started": started}


def _read_sweep(sweep: Path) -> dict[str, Any]:
    try:
        saved = read_sweep(sweep)
        for kind in ("overrides", "hydra"):
            saved_overrides(saved[kind], sweep / SWEEP)
        return saved
    except UserError:
        raise
    except ValueError as error:
        raise UserError(
            f"{error}: continue its jobs one by one (resume={sweep}/<number>), or start it anew"
        ) from error


def _effective(overrides: Sequence[str]) -> list[str]:
    return [o for o in overrides if not o.startswith(_WITHOUT_EFFECT)]


def _resume_sweep(
    folder: Path, sweep: Path, overrides: Sequence[str], extra: str | None
) -> RunRequest:
    saved = _saved_settings(sweep)
    # All jobs of a sweep were started by one version.
    for configuration in sorted(sweep.glob(f"*/{SAVED}/config.yaml"))[:1]:
        _check_version(folder, configuration.parents[1], extra)
    names = {o.partition("=")[0] for o in overrides}
    names |= {"hydra.sweep.dir", "hydra.launcher.resume", "hydra.mode"}
    before = [o for o in saved["overrides"] + saved["hydra"] if o.partition("=")[0] not in names]
    now = [o for o in overrides if o.partition("=")[0] != "hydra.sweep.dir"]
    merged = [*before, *now, directory_override("sweep", sweep)]
    if _launcher(folder, merged, extra) is not None:
        merged.append("hydra.launcher.resume=true")
    return RunRequest(merged, multirun=True, sweep=sweep)


def _launcher(folder: Path, overrides: Sequence[str], extra: str | None) -> dict[str, Any] | None:
    """The settings of our launcher; ``None`` if another is chosen."""
    _, launcher = sweep_directory(folder, overrides, extra=extra)
    if launcher.get("_target_") != _LAUNCHER:
        return None
    return {name: value for name, value in launcher.items() if name != "_target_"}
