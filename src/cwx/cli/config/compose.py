"""The command line's overrides: what each job would run with, checked before the first begins."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
)
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from cwx.cli.config.hydra_files import check_unchanged
from cwx.cli.config.validate import check, without_unchosen
from cwx.errors import UserError, did_you_mean


def configuration_folder() -> Path:
    """Where `conf/` lies: inside an installed package, at the top of a checkout."""
    package = Path(__file__).parents[2]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


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
        UserError: the first thing wrong.
    """
    folders, parsed = _folders(folder, extra), _parsed(overrides)
    if not multirun and (swept := [o.input_line for o in parsed if o.is_sweep_override()]):
        raise UserError(f"{swept[0]} gives several values: add -m to run one job for each")
    with _composing(folder):
        jobs = _jobs([_lenient(override, folders) for override in parsed])
        choices = options(folders)
        configs = [without_unchosen(_compose(job, folders), choices) for job in jobs]
    for config in configs:
        _check_optimized(config.pop("optimize", None))
        check(config)
        if resumed:
            check_unchanged(config, resumed, lambda before: without_unchosen(before, choices))
    return configs[0]


def sweep_folder(
    folder: Path, overrides: Sequence[str], *, extra: str | None
) -> tuple[Path, dict[str, Any]]:
    """The directory that a sweep with these overrides would get, and its launcher's settings.

    Raises:
        UserError: they do not compose.
    """
    place, config = _placed(folder, overrides, extra=extra, mode=RunMode.MULTIRUN)
    launcher: Any = OmegaConf.to_container(config.hydra.launcher)
    return place, launcher


def place_given(
    folder: Path, overrides: Sequence[str], *, extra: str | None, multirun: bool
) -> Path | None:
    """The directory that overrides name for a run or a sweep; ``None`` if they name none.

    Raises:
        UserError: they do not compose, or the name is empty.
    """
    setting = f"hydra.{'sweep' if multirun else 'run'}.dir"
    if not any(line.lstrip("+").startswith(f"{setting}=") for line in overrides):
        return None
    mode = RunMode.MULTIRUN if multirun else RunMode.RUN
    return _placed(folder, overrides, extra=extra, mode=mode)[0]


def _placed(
    folder: Path, overrides: Sequence[str], *, extra: str | None, mode: RunMode
) -> tuple[Path, DictConfig]:
    """Where Hydra would write, and its whole configuration."""
    folders = _folders(folder, extra)
    # What is swept is left as it is: it is known to Hydra, and has no part in the configuration.
    lines = [
        str(override.input_line) if override.is_sweep_override() else _lenient(override, folders)[0]
        for override in _parsed(overrides)
    ]
    setting = f"hydra.{'sweep' if mode is RunMode.MULTIRUN else 'run'}.dir"
    with _composing(folder):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        earlier = HydraConfig.instance().cfg
        try:
            config = hydra.compose_config("run", [*lines, *_search(folders)], mode)
            HydraConfig.instance().set_config(config)
            place = OmegaConf.select(config, setting)
        except MissingConfigException as error:
            raise UserError(_no_such_choice(error, folders)) from error
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_first_line(error)) from error
        finally:
            HydraConfig.instance().cfg = earlier
    if not place:
        raise UserError(f"{setting} is empty: name a folder, or leave it out")
    return Path(str(place)), config


def in_folder(kind: str, folder: Path) -> str:
    """The setting that makes `folder` the directory of a ``run`` or a ``sweep``."""
    return f"hydra.{kind}.dir={QuotedString(str(folder), Quote.single).with_quotes()}"


def options(folders: Iterable[Path]) -> dict[str, set[str]]:
    """The choices of each configuration group, by the names of their files."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for group in (path for path in folder.iterdir() if path.is_dir()):
            names = {str(f.relative_to(group).with_suffix("")) for f in group.rglob("*.yaml")}
            found.setdefault(group.name, set()).update(names)
    # Judges go by the names of their networks.
    found["evaluation_networks"] = found.get("network", set())
    return found


@contextmanager
def _composing(folder: Path) -> Iterator[None]:
    """Let configurations be composed from `folder`, also while Hydra runs from another."""
    hydra = GlobalHydra.instance()
    earlier, hydra.hydra = hydra.hydra, None
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folder.resolve())):
            yield
    finally:
        GlobalHydra.instance().hydra = earlier


def _folders(folder: Path, extra: str | None) -> list[Path]:
    if extra and not Path(extra).is_dir():
        raise UserError(
            f"--config-dir {extra} is not a folder: name the one that holds your configuration"
        )
    return [folder, *([Path(extra).resolve()] if extra else [])]


def _parsed(overrides: Sequence[str]) -> list[Override]:
    return [_read(line) for line in overrides]


def _read(line: str) -> Override:
    try:
        return OverridesParser.create().parse_override(line)
    except HydraException as error:
        raise UserError(
            f"{line} cannot be read ({_first_line(error)}): close what is open, and put a value "
            "with other than plain words in quotes, as in \"key='a=b'\""
        ) from error


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
    values = _values(override, folders)
    name = override.key_or_group
    group = any((folder / name).is_dir() for folder in folders)
    if group and not override.is_delete():
        for value in values:
            _check_choice(name, value, folders)
    of_hydra = name == "hydra" or name.startswith(("hydra.", "hydra/"))
    # Our launcher's settings are held against it later.
    of_hydra = of_hydra and not name.startswith("hydra.launcher.")
    if override.is_delete() or group or of_hydra:
        prefix = line.partition("=")[0]
        return [f"{prefix}={value}" if "=" in line else line for value in values]
    return [f"++{override.get_key_element().lstrip('+')}={value}" for value in values]


def _values(override: Override, folders: Sequence[Path]) -> list[str]:
    """Those that an override stands for; of an interval its ends."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    if isinstance(value, Glob):
        files = {file for f in folders for file in (f / override.key_or_group).glob("*.yaml")}
        if not (chosen := value.filter(sorted(file.stem for file in files))):
            raise UserError(f"{override.input_line} names no file of that group")
        return chosen
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    return [str(override.input_line).partition("=")[2]]


def _check_optimized(names: Any) -> None:
    listed = names if isinstance(names, list) else [names]
    if names is not None and not (listed and all(isinstance(name, str) for name in listed)):
        raise UserError(
            f"optimize is {names!r}: it takes the name of a number in metrics.json, or several"
        )


def _compose(overrides: Sequence[str], folders: Sequence[Path]) -> dict[str, Any]:
    try:
        config = compose("run", [*overrides, *_search(folders)])
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingConfigException as error:
        raise UserError(_no_such_choice(error, folders)) from error
    except MissingMandatoryValue as error:
        key = error.full_key
        raise UserError(f"{key} needs a value: add {key}=…") from error
    except InterpolationKeyError as error:
        raise UserError(
            f"{error.full_key} refers to a setting that this configuration lacks: "
            f"{_first_line(error)}; leave out what refers to it, or give {error.full_key} a value"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_first_line(error)) from error
    return container  # type: ignore[return-value]


def _search(folders: Sequence[Path]) -> list[str]:
    if not folders[1:]:
        return []
    return [f"hydra.searchpath=[{','.join(f'file://{f}' for f in folders[1:])}]"]


def _check_choice(group: str, value: str, folders: Sequence[Path]) -> None:
    """Refuse what Hydra takes for no name, as null."""
    if re.fullmatch(r"null|true|false|[\d.]*", value, re.IGNORECASE):
        choices = sorted(options(folders).get(group, ()))
        raise UserError(_not_among(group, value, choices))


def _no_such_choice(error: MissingConfigException, folders: Sequence[Path]) -> str:
    missing = error.missing_cfg_file or ""
    group, _, name = missing.partition("/")
    choices = sorted(options(folders).get(group, ()))
    if group == "hydra":
        group, _, name = missing.rpartition("/")
        choices = sorted(error.options or ())
    return _not_among(group, name, choices) if choices else _first_line(error)


def _not_among(group: str, name: str, choices: Sequence[str]) -> str:
    # Files below another choice are not chosen by themselves.
    choices = [c for c in choices if "/" not in c or c.partition("/")[0] not in choices]
    remedy = did_you_mean(name, choices, f"there are {', '.join(choices)}", prefix=f"{group}=")
    return f"there is no {group}={name}: {remedy}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
