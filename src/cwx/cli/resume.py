"""What ``resume=`` means: which run or sweep is continued, and with which settings."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cwx.cli.config import hydra_files
from cwx.cli.config.compose import compose_checked, in_folder, sweep_folder
from cwx.cli.config.hydra_files import SAVED
from cwx.cli.config.validate import check
from cwx.cli.sweep.launch import Settings
from cwx.errors import UserError
from cwx.storage.run_files import STATUS, SWEEP
from cwx.storage.sweeps import read_sweep

_HYDRAS = "multirun.yaml"
_OUR_LAUNCHER = "hydra_plugins.cwx_processes.Processes"
# What does not alter the results of a sweep's jobs.
_APART = ("hydra.", "hydra/", "optimize=")


@dataclass(frozen=True)
class Start:
    """What is to be started.

    Attributes:
        overrides: the settings, as Hydra takes them.
        multirun: whether they are those of a sweep.
        run: the directory of the run that is continued, if one is.
        sweep: the directory of the sweep that is continued, if one is.
    """

    overrides: list[str]
    multirun: bool
    run: Path | None = None
    sweep: Path | None = None


def asked_for(
    folder: Path, overrides: Sequence[str], *, multirun: bool, extra: str | None
) -> Start:
    """Replace ``resume=`` by the settings which that run or sweep was started with.

    Args:
        folder: the configuration folder.
        overrides: as on the command line.
        multirun: whether a sweep is asked for.
        extra: a further configuration folder, from ``--config-dir``.

    Raises:
        UserError: there is nothing like it, or settings that it cannot take.
    """
    asked = [o for o in overrides if o.startswith("resume=")]
    others = [o for o in overrides if o not in asked]
    what = asked[0].removeprefix("resume=").strip("'\"") if asked else "false"
    if len(asked) > 1:
        raise UserError(f"resume= is given twice: {' '.join(asked)}")
    if what == "false":
        return Start(others, multirun)
    if not what:
        raise UserError("resume= is empty: name the folder of a run or of a sweep")
    if what == "true":
        return _repeated(folder, others, multirun=multirun, extra=extra)
    if settings := [o for o in others if not o.startswith(("hydra.", "hydra/"))]:
        raise UserError(
            f"resume= takes the settings that the run was started with: remove {' '.join(settings)}"
        )
    continued = Path(what)
    if _is_sweep(continued):
        return _sweep(folder, continued, others, extra)
    return _run(continued, others, multirun=multirun)


def configured_from(overrides: Sequence[str]) -> str | None:
    """The ``--config-dir`` of the run that ``resume=`` names, if it had one that is still there."""
    asked = [o.removeprefix("resume=").strip("'\"") for o in overrides if o.startswith("resume=")]
    file = Path(asked[0]) / SAVED / "hydra.yaml" if asked else None
    if file is None or not file.is_file():
        return None
    sources = OmegaConf.select(hydra_files.read(file), "hydra.runtime.config_sources") or []
    given = [str(source.path) for source in sources if source.provider == "command-line"]
    return next((path for path in given if Path(path).is_dir()), None)


def check_launcher(folder: Path, overrides: Sequence[str], *, extra: str | None) -> None:
    """Refuse settings of our launcher that it could not take.

    Raises:
        UserError: the first of them.
    """
    settings = _launcher(folder, overrides, extra)
    if settings is not None:
        check({**settings, "_target_": "cwx.cli.sweep.launch.Settings"}, "hydra.launcher")
        try:
            Settings(**settings)
        except ValueError as error:
            raise UserError(str(error)) from error


def check_same_job(folder: Path, run: Path, overrides: Sequence[str], *, extra: str | None) -> None:
    """Refuse to count a run as that of a job with these settings if it is not.

    Raises:
        UserError: it was started with others, or they mean another thing by now.
    """
    before = hydra_files.overrides(run)
    if before != list(overrides):
        raise UserError(
            f"{run} was started with {shlex.join(before)}, not with {shlex.join(overrides)}: give "
            "a sampler a seed to continue what it chose, or start the sweep anew"
        )
    compose_checked(folder, overrides, multirun=False, extra=extra, resumed=run)


def _run(run: Path, hydra: Sequence[str], *, multirun: bool) -> Start:
    started = (run / SAVED / "overrides.yaml").is_file() and (run / STATUS).is_file()
    if not started:
        raise UserError(
            f"{run} is not the folder of a run: name one that holds {STATUS} and {SAVED}/"
        )
    if multirun:
        raise UserError(f"{run} is the folder of one run, not of a sweep: leave out -m")
    return Start(
        [*hydra_files.overrides(run), *hydra, in_folder("run", run)], multirun=False, run=run
    )


def _repeated(
    folder: Path, overrides: Sequence[str], *, multirun: bool, extra: str | None
) -> Start:
    """The last sweep that was started by the same command."""
    if not multirun:
        raise UserError(
            "resume=true continues the sweep that the same command started: add -m, or name the "
            "folder of a run (resume=runs/…)"
        )
    place, _ = sweep_folder(folder, overrides, extra=extra)
    given = any(o.startswith("hydra.sweep.dir=") for o in overrides)
    found = [place] if given else place.parent.glob("*/")
    sweeps = sorted(
        ((_saved(sweep), sweep) for sweep in found if _is_sweep(sweep)),
        key=lambda pair: str(pair[0]["started"]),
    )
    for before, sweep in reversed(sweeps):
        if _settings(before["overrides"]) == _settings(overrides):
            return _sweep(folder, sweep, overrides, extra)
    where = place if given else place.parent
    last = f"; the last one there, {sweeps[-1][1]}, was started with " if sweeps else ""
    last += shlex.join(sweeps[-1][0]["overrides"]) if sweeps else ""
    raise UserError(
        f"no sweep in {where} was started with these settings: leave out resume=true to start it, "
        f"or name the sweep's folder (resume=<folder>){last}"
    )


def _is_sweep(folder: Path) -> bool:
    return (folder / SWEEP).is_file() or (folder / _HYDRAS).is_file()


def _saved(sweep: Path) -> dict[str, Any]:
    """What a sweep was started with, and when; of another launcher's, what Hydra itself noted."""
    if (sweep / SWEEP).is_file():
        return _read_sweep(sweep)
    noted = hydra_files.read(sweep / _HYDRAS)
    overrides = noted.hydra.overrides
    started = datetime.fromtimestamp((sweep / _HYDRAS).stat().st_mtime, UTC).isoformat()
    return {"overrides": [*overrides.task], "hydra": [*overrides.hydra], "started": started}


def _read_sweep(sweep: Path) -> dict[str, Any]:
    try:
        return read_sweep(sweep)
    except ValueError as error:
        raise UserError(
            f"{error}: continue its jobs one by one (resume={sweep}/<number>), or start it anew"
        ) from error


def _settings(overrides: Sequence[str]) -> list[str]:
    return [o for o in overrides if not o.startswith(_APART)]


def _sweep(folder: Path, sweep: Path, given: Sequence[str], extra: str | None) -> Start:
    started = _saved(sweep)
    names = {o.partition("=")[0] for o in given}
    names |= {"hydra.sweep.dir", "hydra.launcher.resume", "hydra.mode"}
    before = [
        o for o in started["overrides"] + started["hydra"] if o.partition("=")[0] not in names
    ]
    now = [o for o in given if o.partition("=")[0] != "hydra.sweep.dir"]
    overrides = [*before, *now, in_folder("sweep", sweep)]
    if _launcher(folder, overrides, extra) is not None:
        overrides.append("hydra.launcher.resume=true")
    return Start(overrides, multirun=True, sweep=sweep)


def _launcher(folder: Path, overrides: Sequence[str], extra: str | None) -> dict[str, Any] | None:
    """The settings of our launcher; ``None`` if another is chosen."""
    _, launcher = sweep_folder(folder, overrides, extra=extra)
    if launcher.get("_target_") != _OUR_LAUNCHER:
        return None
    return {name: value for name, value in launcher.items() if name != "_target_"}
