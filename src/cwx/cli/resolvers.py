"""OmegaConf resolvers: names of runs and sweeps for their directories and for W&B, and help texts.

Names are "unnamed" or ``None`` while a configuration is only checked or printed.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cwx.cli import run_directory
from cwx.cli.config.groups import configuration_folder
from cwx.cli.config.validate import experiment_name
from cwx.cli.failures import exit_with_message
from cwx.cli.sweep.resources import is_rank
from cwx.errors import UserError
from cwx.storage.paths import below
from cwx.storage.run_folders import sweep_of
from cwx.storage.runs import Run

_UNKNOWN = "unnamed"


def register_resolvers() -> None:
    """Register the resolvers that configuration files use."""
    OmegaConf.register_new_resolver("sum", lambda *terms: sum(terms), replace=True)
    for resolver in (choice, chosen, experiment, run_id, run_name, sweep, unused):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
    # Cached: a job of a sweep has one experiment, but belongs to the directory of all.
    OmegaConf.register_new_resolver("studies", studies, replace=True, use_cache=True)


def unused(folder: str) -> str:
    """The directory of a single run; created when the run starts."""
    if not HydraConfig.initialized() or is_rank(os.environ):
        return folder
    if HydraConfig.get().mode is not RunMode.RUN:
        return folder
    try:
        return run_directory.unused(folder)
    except UserError as error:
        exit_with_message(error)


def folder() -> Path | None:
    """The run's output directory; ``None`` while nothing runs."""
    if not HydraConfig.initialized():
        return None
    runtime = HydraConfig.get().runtime
    return None if OmegaConf.is_missing(runtime, "output_dir") else Path(runtime.output_dir)


def choice(group: str) -> str:
    """The choice of a configuration group."""
    if not HydraConfig.initialized():
        return _UNKNOWN
    return str(HydraConfig.get().runtime.choices.get(group))


def chosen(group: str, name: str, *, _root_: DictConfig) -> str | None:
    """The name of a part, such as a method, if the study has it; else ``None``."""
    # A part that was not chosen may have settings, but no target.
    return None if OmegaConf.select(_root_, f"{group}.{name}._target_") is None else name


def experiment() -> str:
    """The experiment, and its scale unless that is "paper"."""
    if not HydraConfig.initialized():
        return _UNKNOWN
    return experiment_name(HydraConfig.get().runtime.choices)


def studies(chosen: str, overrides: Sequence[str]) -> str:
    """The name of a sweep: its experiment, or all experiments if it sweeps over them.

    >>> studies("digits/quickstart", ["experiment=cifar10/noise", "seed=0,1"])
    'digits/quickstart'
    >>> studies("digits/quickstart", ["experiment=cifar10/natural,cifar10/adversarial"])
    'cifar10/natural+adversarial'
    >>> studies("digits/quickstart", ["experiment=cifar10/cwx,svhn/cwx"])
    'cifar10-cwx+svhn-cwx'
    """
    values = [line.partition("=")[2] for line in overrides if line.startswith("experiment=")]
    names = [name.strip() for name in values[-1].split(",")] if values else []
    if len(names) < 2 or not all(re.fullmatch(r"[\w/-]+", name) for name in names):
        return chosen
    folders = {name.rpartition("/")[0] for name in names}
    if len(folders) == 1:
        joined = "+".join(name.rpartition("/")[2] for name in names)
        return f"{folders.pop()}/{joined}".lstrip("/")[:100]
    return "+".join(name.replace("/", "-") for name in names)[:100]


def run_id() -> str:
    """A hash of the output directory's path, which a resumed run keeps."""
    directory = folder()
    if directory is None:
        return _UNKNOWN
    return hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:8]


def run_name() -> str:
    """The experiment, and the settings that a sweep varies.

    Such as ``cifar10/noise small corruption.rate=0.75``.
    """
    directory = folder()
    words = [experiment()]
    if directory is not None and sweep_of(directory) is not None:
        swept = Run.read(directory).swept
        words += [line for line in swept if not line.startswith(("experiment=", "scale="))]
    return " ".join(words)


def sweep() -> str | None:
    """The directory of the sweep that the run is a job of; ``None`` for a single run."""
    directory = folder()
    parent = None if directory is None else sweep_of(directory)
    if parent is None:
        return None
    return str(below(parent.resolve(), Path.cwd()))


def configuration_folders() -> list[Path]:
    """The folders that Hydra reads configuration from, ours first."""
    folders = [configuration_folder()]
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        paths = [Path(source.path) for source in sources if source.schema == "file"]
        folders += [path for path in paths if path.resolve() != folders[0].resolve()]
    return folders
