"""Composes the configuration of each job from the command line, and checks it before any starts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
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

from cwx.cli.config.followed_settings import check_followed
from cwx.cli.config.groups import (
    check_choice,
    choices,
    configuration_folders,
    options,
    selectable,
    unknown_choice,
)
from cwx.cli.config.home import expand_settings
from cwx.cli.config.hydra_files import SAVED, check_unchanged
from cwx.cli.config.interpolations import check_expansion
from cwx.cli.config.null_keys import refuse_null_keys
from cwx.cli.config.override_text import parse_override
from cwx.cli.config.unchosen import drop_unchosen, drop_unchosen_of_job, refuse_unchosen
from cwx.cli.config.validate import check
from cwx.errors import UserError


def compose_checked(
    folder: Path,
    overrides: Sequence[str],
    *,
    multirun: bool,
    extra: str | None,
    resumed: Path | None,
) -> dict[str, Any]:
    """Compose and check the configuration of every job.

    Args:
        folder: the configuration folder.
        overrides: as on the command line.
        multirun: whether an override may have several values.
        extra: a further configuration folder, from ``--config-dir``.
        resumed: the directory of a run; its saved configuration must equal the composed one.

    Returns:
        The resolved configuration of the first job.

    Raises:
        UserError: the first error found.
    """
    folders = configuration_folders(extra, folder)
    # A job of a sweep has its number; the sweep has checked its settings, and reads the metric.
    checked = ("hydra.job.num=", "hydra.launcher.resume=")
    is_new = not (resumed or any(line.lstrip("+").startswith(checked) for line in overrides))
    try:
        configs = _compose_jobs(folders, overrides, multirun=multirun, is_new=is_new)
        for _, resolved in configs:
            _check_optimized(resolved.pop("optimize", None), alone=is_new and not multirun)
            check(resolved)
            if is_new:
                check_followed(resolved.get("method") or {})
    except UserError as error:
        if resumed is None:
            raise
        file = resumed / SAVED / "overrides.yaml"
        raise UserError(
            f"{resumed} cannot be continued with the settings in {file}: {error}"
        ) from error
    if resumed:
        unresolved, resolved = configs[0]
        unresolved.pop("optimize", None)
        check_unchanged(resolved, unresolved, resumed, lambda c: drop_unchosen(c, options(folders)))
    return configs[0][1]


def _compose_jobs(
    folders: Sequence[Path], overrides: Sequence[str], *, multirun: bool, is_new: bool
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The configuration of each job: with its interpolations, and resolved."""
    parsed = _parse(overrides)
    if not multirun and (swept := [o.input_line for o in parsed if o.is_sweep_override()]):
        raise UserError(f"{swept[0]} gives several values: add -m to run one job for each")
    with _composing(folders[0]):
        jobs = _jobs([_lenient(override, folders) for override in parsed])
        known = options(folders)
        composed = [(job, _compose(job, folders)) for job in jobs]
        settings = [o.key_or_group for o in parsed if is_new and not o.is_delete()]
        refuse_unchosen(settings, [resolved for _, (_, resolved) in composed], known)
        return [drop_unchosen_of_job(job, config, known) for job, config in composed]


def sweep_directory(
    folder: Path, overrides: Sequence[str], *, extra: str | None
) -> tuple[Path, dict[str, Any]]:
    """The directory of a sweep with these overrides, and the settings of its launcher.

    Raises:
        UserError: the overrides do not compose.
    """
    directory, config = _output_directory(folder, overrides, extra=extra, mode=RunMode.MULTIRUN)
    launcher: Any = OmegaConf.to_container(config.hydra.launcher)
    return directory, launcher


def explicit_directory(
    folder: Path, overrides: Sequence[str], *, extra: str | None, multirun: bool
) -> Path | None:
    """The directory in ``hydra.run.dir=`` or ``hydra.sweep.dir=``; ``None`` without that override.

    Raises:
        UserError: the overrides do not compose, or the directory is empty.
    """
    setting = f"hydra.{'sweep' if multirun else 'run'}.dir"
    if not any(line.lstrip("+").startswith(f"{setting}=") for line in overrides):
        return None
    mode = RunMode.MULTIRUN if multirun else RunMode.RUN
    return _output_directory(folder, overrides, extra=extra, mode=mode)[0]


def _output_directory(
    folder: Path, overrides: Sequence[str], *, extra: str | None, mode: RunMode
) -> tuple[Path, DictConfig]:
    """The directory that Hydra would write to, and the composed configuration with its own."""
    folders = configuration_folders(extra, folder)
    # Hydra reads sweep overrides itself; they are not part of the configuration.
    lines = [
        str(override.input_line) if override.is_sweep_override() else _lenient(override, folders)[0]
        for override in _parse(overrides)
    ]
    setting = f"hydra.{'sweep' if mode is RunMode.MULTIRUN else 'run'}.dir"
    with _composing(folder):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        earlier = HydraConfig.instance().cfg
        try:
            config = hydra.compose_config("run", [*lines, *_search(folders)], mode)
            HydraConfig.instance().set_config(config)
            directory = OmegaConf.select(config, setting)
        except MissingConfigException as error:
            raise UserError(_missing_choice(error, folders)) from error
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_first_line(error)) from error
        finally:
            HydraConfig.instance().cfg = earlier
    if directory:
        return Path(str(directory)), config
    raise UserError(f"{setting} is empty: name a folder, or leave it out")


def directory_override(kind: str, folder: Path) -> str:
    """The override that makes `folder` the directory of a ``run`` or a ``sweep``."""
    return f"hydra.{kind}.dir={QuotedString(str(folder), Quote.single).with_quotes()}"


@contextmanager
def _composing(folder: Path) -> Iterator[None]:
    """Compose configurations from `folder`, also while Hydra runs with another folder."""
    hydra = GlobalHydra.instance()
    earlier, hydra.hydra = hydra.hydra, None
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folder.resolve())):
            yield
    finally:
        GlobalHydra.instance().hydra = earlier


def _parse(overrides: Sequence[str]) -> list[Override]:
    parsed = [parse_override(line) for line in overrides]
    for override in parsed:
        refuse_null_keys(override.value(), str(override.key_or_group), str(override.input_line))
    return parsed


def _jobs(overrides: Sequence[list[str]]) -> Iterator[list[str]]:
    """The first job of a sweep, then a job for each further value of each swept setting."""
    first = [values[0] for values in overrides]
    yield first
    for position, values in enumerate(overrides):
        for value in values[1:]:
            yield [*first[:position], value, *first[position + 1 :]]


def _lenient(override: Override, folders: Sequence[Path]) -> list[str]:
    """The values of an override, each as ``++key=value``, which Hydra accepts for any key.

    `check` refuses unknown keys later, with the nearest name; Hydra does not name it, and accepts
    any ``+key``.
    """
    line = str(override.input_line)
    values = _values(override, folders)
    name = override.key_or_group
    group = any((folder / name).is_dir() for folder in folders)
    if group and not override.is_delete():
        for value in values:
            check_choice(name, value, folders)
    of_hydra = name == "hydra" or name.startswith(("hydra.", "hydra/"))
    # The settings of our launcher are checked later, against its signature.
    of_hydra = of_hydra and not name.startswith("hydra.launcher.")
    if override.is_delete() or group or of_hydra:
        prefix = line.partition("=")[0]
        return [f"{prefix}={value}" if "=" in line else line for value in values]
    return [f"++{override.get_key_element().lstrip('+')}={value}" for value in values]


def _values(override: Override, folders: Sequence[Path]) -> list[str]:
    """The values of an override; of an interval, its two ends."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    if isinstance(value, Glob):
        files = {file for f in folders for file in (f / override.key_or_group).glob("*.yaml")}
        if not (names := value.filter(sorted(file.stem for file in files))):
            raise UserError(f"{override.input_line} names no file of that group")
        return names
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    return [str(override.input_line).partition("=")[2]]


def _check_optimized(names: Any, *, alone: bool) -> None:
    listed = names if isinstance(names, list) else [names]
    if names is not None and not (listed and all(isinstance(name, str) for name in listed)):
        raise UserError(
            f"optimize is {names!r}: it takes the name of a metric in metrics.json, or several"
        )
    if names is not None and alone:
        raise UserError(
            f"optimize is {names!r}, but one run has nothing to optimise: add -m and a sweeper, "
            "or leave it out"
        )


def _compose(
    overrides: Sequence[str], folders: Sequence[Path]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The composed configuration: with its interpolations, and resolved."""
    try:
        config = compose("run", [*overrides, *_search(folders)])
        unresolved: Any = OmegaConf.to_container(config)
        check_expansion(unresolved)
        resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingConfigException as error:
        raise UserError(_missing_choice(error, folders)) from error
    except MissingMandatoryValue as error:
        key = error.full_key
        raise UserError(f"{key} needs a value: add {key}=…") from error
    except InterpolationKeyError as error:
        raise UserError(
            f"{error.full_key} refers to a setting that this configuration lacks: "
            f"{_first_line(error)}; leave out the part with {error.full_key}, or give it a value"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_first_line(error)) from error
    except RecursionError as error:
        raise UserError("the settings are nested too deeply: give plain values") from error
    return unresolved, expand_settings(resolved)


def _search(folders: Sequence[Path]) -> list[str]:
    own = [f"file://{folder}" for folder in folders[1:]]
    return [f"hydra.searchpath=[{','.join(own)}]"] if own else []


def _missing_choice(error: MissingConfigException, folders: Sequence[Path]) -> str:
    missing = error.missing_cfg_file or ""
    group, _, name = missing.partition("/")
    known = choices(group, folders)
    if group == "hydra":
        group, _, name = missing.rpartition("/")
        known = selectable(error.options or ())
    return unknown_choice(group, name, known) if known else _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
