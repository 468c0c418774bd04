"""The command line's overrides: what each job would run with, checked before the first begins."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from cwx.configuration import ConfigurationError, check, without_unchosen

SAVED = Path(".hydra")


def continued(overrides: Sequence[str]) -> tuple[list[str], Path | None]:
    """Replace ``resume=<run dir>`` by the overrides which that run was started with.

    Returns:
        The overrides and the run's directory, or the given overrides and ``None``.

    Raises:
        ConfigurationError: the directory is not a run's, or other overrides stand beside it.
    """
    resumes = [o for o in overrides if o.startswith("resume=")]
    if not resumes:
        return list(overrides), None
    others = [o for o in overrides if o not in resumes]
    if others or len(resumes) > 1:
        raise ConfigurationError(
            f"resume= takes the settings that the run was started with: remove {' '.join(others)}"
        )
    folder = Path(resumes[0].removeprefix("resume=").strip("'\""))
    saved = folder / SAVED / "overrides.yaml"
    if not saved.is_file() or not (folder / "status.json").is_file():
        raise ConfigurationError(
            f"{folder} is not the folder of a run: name one that holds status.json and {SAVED}/"
        )
    first = [str(o) for o in OmegaConf.load(saved)]
    return [*first, f"hydra.run.dir='{folder}'"], folder


def compose_checked(
    folder: Path,
    overrides: Sequence[str],
    *,
    multirun: bool,
    extra: str | None,
    resumed: Path | None,
) -> dict[str, Any]:
    """Compose and check every setting that the overrides ask for.

    Args:
        folder: the configuration folder.
        overrides: as on the command line.
        multirun: whether they may sweep.
        extra: a further configuration folder, from ``--config-dir``.
        resumed: a run's directory whose configuration must compose to what it was.

    Returns:
        The resolved configuration of the first job.

    Raises:
        ConfigurationError: the first thing wrong.
    """
    folders = [folder, *([Path(extra).resolve()] if extra else [])]
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigurationError(_first_line(error)) from error
    if not multirun and (swept := [o.input_line for o in parsed if o.is_sweep_override()]):
        raise ConfigurationError(f"{swept[0]} gives several values: add -m to run one job for each")
    with initialize_config_dir(version_base="1.3", config_dir=str(folder.resolve())):
        jobs = _jobs([_lenient(override, folders) for override in parsed])
        choices = options(folders)
        configs = [without_unchosen(_compose(job, folders), choices) for job in jobs]
    for config in configs:
        check(config)
        if resumed:
            _check_unchanged(config, resumed, folders)
    return configs[0]


def options(folders: Iterable[Path]) -> dict[str, set[str]]:
    """The choices of each configuration group, by the names of their files."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for group in (path for path in folder.iterdir() if path.is_dir()):
            names = {str(f.relative_to(group).with_suffix("")) for f in group.rglob("*.yaml")}
            found.setdefault(group.name, set()).update(names)
    # Judges go by the names of their networks.
    found["judges"] = found.get("network", set())
    return found


def _jobs(overrides: Sequence[list[str]]) -> Iterator[list[str]]:
    """The first job of the sweep, then one for each other value of each swept setting."""
    first = [choices[0] for choices in overrides]
    yield first
    for position, choices in enumerate(overrides):
        for choice in choices[1:]:
            yield [*first[:position], choice, *first[position + 1 :]]


def _lenient(override: Override, folders: Sequence[Path]) -> list[str]:
    """Each value of an override as Hydra takes it for a key that exists; that is checked later.

    Hydra's own refusal knows no nearest name, and for ``+key`` there is none.
    """
    line = str(override.input_line)
    if override.is_sweep_override() and override.is_discrete_sweep():
        values = list(override.sweep_string_iterator())
    else:
        values = [line.partition("=")[2]]
    name = override.key_or_group
    group = any((folder / name).is_dir() for folder in folders)
    if group and not override.is_delete():
        for value in values:
            _check_choice(name, value, folders)
    if override.is_delete() or group or name == "hydra" or name.startswith("hydra."):
        prefix = line.partition("=")[0]
        return [f"{prefix}={value}" if "=" in line else line for value in values]
    return [f"++{override.get_key_element().lstrip('+')}={value}" for value in values]


def _compose(overrides: Sequence[str], folders: Sequence[Path]) -> dict[str, Any]:
    search = [f"hydra.searchpath=[{','.join(f'file://{f}' for f in folders[1:])}]"]
    try:
        config = compose("run", overrides=[*overrides, *(search if folders[1:] else [])])
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingConfigException as error:
        raise ConfigurationError(_no_such_choice(error, folders)) from error
    except MissingMandatoryValue as error:
        key = error.full_key
        raise ConfigurationError(f"{key} needs a value: add {key}=…") from error
    except InterpolationKeyError as error:
        raise ConfigurationError(
            f"{error.full_key} refers to a setting that this configuration lacks: "
            f"{_first_line(error)}; leave out what refers to it, or give {error.full_key} a value"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(_first_line(error)) from error
    return container  # type: ignore[return-value]


def _check_choice(group: str, value: str, folders: Sequence[Path]) -> None:
    """Refuse what Hydra takes for no name, as null."""
    if re.fullmatch(r"null|true|false|[\d.]*", value, re.IGNORECASE):
        choices = sorted(options(folders).get(group, ()))
        raise ConfigurationError(_not_among(group, value, choices))


def _no_such_choice(error: MissingConfigException, folders: Sequence[Path]) -> str:
    group, _, name = (error.missing_cfg_file or "").partition("/")
    choices = sorted(options(folders).get(group, ()))
    return _not_among(group, name, choices) if choices else _first_line(error)


def _not_among(group: str, name: str, choices: Sequence[str]) -> str:
    # Files below another choice are not chosen by themselves.
    choices = [c for c in choices if "/" not in c or c.partition("/")[0] not in choices]
    near = difflib.get_close_matches(name, choices, 1, cutoff=0.5)
    remedy = f"did you mean {group}={near[0]}?" if near else f"there are {', '.join(choices)}"
    return f"there is no {group}={name}: {remedy}"


def _check_unchanged(config: dict[str, Any], folder: Path, folders: Sequence[Path]) -> None:
    saved = OmegaConf.load(folder / SAVED / "config.yaml")
    before = without_unchosen(OmegaConf.to_container(saved, resolve=True), options(folders))  # type: ignore[arg-type]
    if difference := _difference(before, config, ""):
        raise ConfigurationError(
            f"the configuration files have changed since {folder} was started ({difference}): "
            "restore them to continue it, or start anew"
        )


def _difference(before: Any, now: Any, path: str) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            place = f"{path}.{key}" if path else str(key)
            if found := _difference(before.get(key), now.get(key), place):
                return found
        return ""
    return "" if before == now else f"{path} was {before!r} and is {now!r}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
