"""The files that Hydra saves in a run's directory, from which ``resume=`` continues."""

from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cwx.cli.config.validate import check, first_difference
from cwx.errors import UserError
from cwx.storage.run_status import read_status
from cwx.storage.yaml_files import read_plain_yaml

SAVED = Path(".hydra")


def read(file: Path) -> Any:
    """Load one of Hydra's YAML files.

    Raises:
        UserError: the file is damaged or missing.
    """
    try:
        return OmegaConf.load(StringIO(read_plain_yaml(file)))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} cannot be read ({reason}), and the run cannot be continued "
            "without it: restore it, or start anew"
        ) from error


def overrides(run: Path) -> list[str]:
    """The settings that a run was started with."""
    return [str(line) for line in read(run / SAVED / "overrides.yaml")]


def check_version(run: Path, drop: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Refuse to continue a run whose saved configuration this version of cwx does not accept.

    The configuration was valid when the run was started, so that an unknown key or `_target_`
    means that the code has changed.

    Args:
        drop: removes the settings of parts that were not chosen.

    Raises:
        UserError: names the version and the commit that made the run.
    """
    saved = read(run / SAVED / "config.yaml")
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
    before = _configuration(read(run / SAVED / "config.yaml"), drop)
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
