"""The settings in a run's directory, from which ``resume=`` continues.

The files have the names and the form of Hydra's own. Hydra would write them at every start, and
not atomically: a process that is killed there would leave an empty file.

A folder may come from someone else. So interpolations in its files are compared as texts and never
resolved here: resolving may read the environment, and may expand to gigabytes.
"""

from collections.abc import Callable, Mapping
from io import StringIO
from os.path import lexists
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cwx.cli.config.interpolations import saved_overrides, unknown_resolver
from cwx.cli.config.validate import Unresolved, check, first_difference
from cwx.errors import UserError
from cwx.storage.atomic import write_text
from cwx.storage.run_files import MULTIRUN
from cwx.storage.run_status import read_status
from cwx.storage.yaml_files import read_plain_yaml, read_yaml

SAVED = Path(".hydra")
# Interpolations in a file, about ten times as many as a large study has: parsing them is slow.
_MAX_INTERPOLATIONS = 2000


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


def save_sweep(folder: Path, text: str) -> None:
    """Write the settings of a new sweep, atomically; the file of a resumed sweep stays.

    Args:
        text: the configuration of the sweep as YAML, unresolved.
    """
    if not lexists(folder / MULTIRUN):
        write_text(folder / MULTIRUN, text)


def read(file: Path) -> Any:
    """The content of one of the files of settings: plain values, interpolations unresolved.

    Raises:
        UserError: the file is damaged, empty or missing.
    """
    try:
        content = read_yaml(file)
        if isinstance(content, dict | list):
            content = _plain_content(read_plain_yaml(file))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
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


def _plain_content(text: str) -> Any:
    """As Hydra reads it: its loader takes other texts for numbers than the plain one."""
    if text.count("${") > _MAX_INTERPOLATIONS:
        raise ValueError(f"more than {_MAX_INTERPOLATIONS:,} interpolations")
    return OmegaConf.to_container(OmegaConf.load(StringIO(text)))


def overrides(run: Path) -> list[str]:
    """The settings that a run was started with.

    Raises:
        UserError: the file is damaged, empty or missing, or its settings use a resolver that a
            saved run may not use.
    """
    file = run / SAVED / "overrides.yaml"
    lines = saved_overrides(read(file), file)
    if others := [line for line in lines if line.lstrip("+~").startswith(("hydra.", "hydra/"))]:
        raise UserError(
            f"{file} is damaged: {others[0][:100]} is no setting of a study; restore it, or start "
            "anew"
        )
    return lines


def sweep_overrides(file: Path) -> dict[str, list[str]]:
    """The settings in Hydra's file of a sweep, ``task`` and ``hydra``.

    Raises:
        UserError: the file is damaged, empty or missing, or its settings use a resolver that a
            saved sweep may not use.
    """
    node: Any = _read_mapping(file)
    for key in ("hydra", "overrides"):
        node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, dict) or not {"task", "hydra"} <= {*node}:
        raise UserError(
            f"{file} is damaged: it has no hydra.overrides; continue the jobs one by one "
            "(resume=<folder of a job>), or start the sweep anew"
        )
    return {kind: saved_overrides(node[kind], file) for kind in ("task", "hydra")}


def command_line_sources(run: Path) -> list[str]:
    """The configuration folders that a run was given by ``--config-dir``.

    Raises:
        UserError: the file is damaged, empty or missing.
    """
    file = run / SAVED / "hydra.yaml"
    node: Any = _read_mapping(file)
    for key in ("hydra", "runtime", "config_sources"):
        node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, list) or not all(isinstance(source, dict) for source in node):
        raise UserError(
            f"{file} is damaged: it has no hydra.runtime.config_sources; restore it, or start anew"
        )
    return [str(s.get("path")) for s in node if s.get("provider") == "command-line"]


def _read_mapping(file: Path) -> dict[str, Any]:
    content = read(file)
    if not isinstance(content, dict):
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
    file = run / SAVED / "config.yaml"
    configuration = _configuration(_read_mapping(file), drop)
    try:
        if resolver := unknown_resolver(configuration):
            raise UserError(f"there is no resolver {resolver}")
        check(_without_interpolations(configuration))
    except (UserError, KeyError) as error:
        missing = isinstance(error, KeyError)
        reason = f"{error.args[0]} is missing" if missing else str(error).splitlines()[0]
        raise UserError(
            f"{run} was started by another version of cwx ({_version(run)}), whose configuration "
            f"this version does not accept ({file}: {reason}): check out that commit to continue "
            "the run, or start the study anew"
        ) from error


def check_unchanged(
    now: Mapping[str, Any],
    unresolved: Mapping[str, Any],
    run: Path,
    drop: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Refuse to continue a run with another configuration than it was started with.

    Args:
        now: the configuration that is composed now, resolved.
        unresolved: the same with its interpolations.
        drop: removes the settings of parts that were not chosen.

    Raises:
        UserError: names the first difference.
    """
    file = run / SAVED / "config.yaml"
    before = _configuration(_read_mapping(file), drop)
    if changed := first_difference(before, now, unresolved):
        raise UserError(
            f"the configuration files have changed since {run} was started ({file}: {changed}): "
            "restore them to continue it, or start anew"
        )


def _configuration(
    saved: dict[str, Any], drop: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    configuration = drop(saved)
    configuration.pop("optimize", None)
    return configuration


def _without_interpolations(value: Any) -> Any:
    """The same values, each text with an interpolation marked as unresolved."""
    if isinstance(value, dict):
        return {key: _without_interpolations(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_interpolations(item) for item in value]
    return Unresolved(value) if isinstance(value, str) and "${" in value else value


def _version(run: Path) -> str:
    try:
        status = read_status(run)
    except ValueError:
        status = {}
    versions = status.get("versions")
    version = versions.get("cwx") if isinstance(versions, dict) else None
    return f"version {version or 'unknown'}, commit {status.get('commit') or 'unknown'}"
