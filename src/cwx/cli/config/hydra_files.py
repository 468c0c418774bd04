"""The settings in a run's directory, from which ``resume=`` continues.

The files have the names and the form of Hydra's own. Hydra would write them at every start, and
not atomically: a process that is killed there would leave an empty file.
"""

from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cwx.cli.config.validate import check, first_difference
from cwx.errors import UserError
from cwx.storage.atomic import write_text
from cwx.storage.run_status import read_status
from cwx.storage.yaml_files import read_plain_yaml

SAVED = Path(".hydra")


def save(folder: Path, config: Any, hydra_config: Any) -> None:
    """Write the settings of a new run, each file atomically; ``overrides.yaml`` is the last.

    Args:
        config: the configuration of the study, unresolved.
        hydra_config: the configuration of Hydra itself.
    """
    saved = {
        "config.yaml": config,
        "hydra.yaml": OmegaConf.create({"hydra": hydra_config}),
        "overrides.yaml": hydra_config.overrides.task,
    }
    for name, content in saved.items():
        write_text(folder / SAVED / name, OmegaConf.to_yaml(content))


def read(file: Path) -> Any:
    """Load one of the files of settings.

    Raises:
        UserError: the file is damaged, empty or missing.
    """
    try:
        text = read_plain_yaml(file)
        content = OmegaConf.load(StringIO(text)) if text.strip() else None
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} cannot be read ({reason}), and the run cannot be continued "
            "without it: restore it, or start anew"
        ) from error
    if content is None:
        raise UserError(
            f"{file} is empty, as after a full disk or a killed copy, and the run cannot be "
            "continued without it: restore it, or start anew"
        )
    return content


def overrides(run: Path) -> list[str]:
    """The settings that a run was started with."""
    file = run / SAVED / "overrides.yaml"
    lines = read(file)
    if not OmegaConf.is_list(lines):
        raise UserError(f"{file} is damaged: it is no list of settings; restore it, or start anew")
    return [str(line) for line in lines]


def sweep_overrides(file: Path) -> Any:
    """The settings in Hydra's file of a sweep, ``task`` and ``hydra``.

    Raises:
        UserError: the file is damaged, empty or missing.
    """
    overrides = OmegaConf.select(_read_mapping(file), "hydra.overrides")
    if not OmegaConf.is_dict(overrides) or not {"task", "hydra"} <= {*overrides}:
        raise UserError(
            f"{file} is damaged: it has no hydra.overrides; continue the jobs one by one "
            "(resume=<folder of a job>), or start the sweep anew"
        )
    return overrides


def _read_mapping(file: Path) -> Any:
    content = read(file)
    if not OmegaConf.is_dict(content):
        raise UserError(f"{file} is damaged: it has no settings; restore it, or start anew")
    return content


def check_version(run: Path, drop: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Refuse to continue a run whose saved configuration this version of cwx does not accept.

    The configuration was valid when the run was started, so that an unknown key or `_target_`
    means that the code has changed.

    Args:
        drop: removes the settings of parts that were not chosen.

    Raises:
        UserError: names the version and the commit that made the run.
    """
    saved = _read_mapping(run / SAVED / "config.yaml")
    try:
        check(_configuration(saved, drop))
    except (UserError, OmegaConfBaseException, KeyError) as error:
        missing = isinstance(error, KeyError)
        reason = f"{error.args[0]} is missing" if missing else str(error).splitlines()[0]
        raise UserError(
            f"{run} was started by another version of cwx ({_version(run)}), whose configuration "
            f"this version does not accept ({reason}): check out that commit to continue the run, "
            "or start the study anew"
        ) from error


def check_unchanged(
    now: Mapping[str, Any], run: Path, drop: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Refuse to continue a run with another configuration than it was started with.

    Args:
        drop: removes the settings of parts that were not chosen.

    Raises:
        UserError: names the first difference.
    """
    before = _configuration(_read_mapping(run / SAVED / "config.yaml"), drop)
    if changed := first_difference(before, now):
        raise UserError(
            f"the configuration files have changed since {run} was started ({changed}): "
            "restore them to continue it, or start anew"
        )


def _configuration(saved: Any, drop: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    resolved: Any = OmegaConf.to_container(saved, resolve=True)
    configuration = drop(resolved)
    configuration.pop("optimize", None)
    return configuration


def _version(run: Path) -> str:
    try:
        status = read_status(run)
    except ValueError:
        status = {}
    versions = status.get("versions")
    version = versions.get("cwx") if isinstance(versions, dict) else None
    return f"version {version or 'unknown'}, commit {status.get('commit') or 'unknown'}"
