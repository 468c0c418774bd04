"""What a run or a sweep is called, by its folder and its settings: in its path, here and in W&B.

Each is of no meaning while a configuration is only checked or shown.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from cwx.cli import run_directory
from cwx.cli.config.validate import experiment_name
from cwx.cli.failures import stop
from cwx.cli.sweep.resources import is_rank
from cwx.errors import UserError
from cwx.storage.paths import below
from cwx.storage.runs import Run, sweep_of

_UNKNOWN = "unnamed"


def register_resolvers() -> None:
    """Register what configuration files may ask of the run they belong to."""
    OmegaConf.register_new_resolver("sum", lambda *terms: sum(terms), replace=True)
    for resolver in (choice, experiment, run_id, run_name, sweep, unused):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
    # Cached, for a job of a sweep has one experiment alone.
    OmegaConf.register_new_resolver("studies", studies, replace=True, use_cache=True)


def unused(folder: str) -> str:
    """The folder that a single run gets; it is made if the run begins."""
    if not HydraConfig.initialized() or is_rank(os.environ):
        return folder
    if HydraConfig.get().mode is not RunMode.RUN:
        return folder
    try:
        return run_directory.unused(folder)
    except UserError as error:
        stop(error)


def folder() -> Path | None:
    """Where the run leaves what it finds; ``None`` if it does not run."""
    if not HydraConfig.initialized():
        return None
    runtime = HydraConfig.get().runtime
    return None if OmegaConf.is_missing(runtime, "output_dir") else Path(runtime.output_dir)


def choice(group: str) -> str:
    """What was chosen of a configuration group."""
    if not HydraConfig.initialized():
        return _UNKNOWN
    return str(HydraConfig.get().runtime.choices.get(group))


def experiment() -> str:
    """The experiment chosen, and its scale if it is not the paper's."""
    if not HydraConfig.initialized():
        return _UNKNOWN
    return experiment_name(HydraConfig.get().runtime.choices)


def studies(chosen: str, overrides: Sequence[str]) -> str:
    """The name of a sweep: the experiment, or all of them if it is what is swept.

    >>> studies("digits/quickstart", ["experiment=cifar10/noise", "seed=0,1"])
    'digits/quickstart'
    >>> studies("digits/quickstart", ["experiment=cifar10/natural,cifar10/adversarial"])
    'cifar10/natural+adversarial'
    >>> studies("digits/quickstart", ["experiment=cifar10/cwx,svhn/cwx"])
    'cifar10-cwx+svhn-cwx'
    """
    given = [line.partition("=")[2] for line in overrides if line.startswith("experiment=")]
    names = [name.strip() for name in given[-1].split(",")] if given else []
    if len(names) < 2 or not all(re.fullmatch(r"[\w/-]+", name) for name in names):
        return chosen
    folders = {name.rpartition("/")[0] for name in names}
    if len(folders) == 1:
        together = "+".join(name.rpartition("/")[2] for name in names)
        return f"{folders.pop()}/{together}".lstrip("/")[:100]
    return "+".join(name.replace("/", "-") for name in names)[:100]


def run_id() -> str:
    """A name for the run in the output directory that stays the same when it is resumed."""
    place = folder()
    if place is None:
        return _UNKNOWN
    return hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:8]


def run_name() -> str:
    """The experiment, and what a sweep varies.

    ``cifar10/noise small corruption.rate=0.75``
    """
    place = folder()
    words = [experiment()]
    if place is not None and sweep_of(place) is not None:
        swept = Run.read(place).swept
        words += [one for one in swept if not one.startswith(("experiment=", "scale="))]
    return " ".join(words)


def sweep() -> str | None:
    """The sweep that the run is a job of, by its folder; ``None`` for a run by itself."""
    place = folder()
    found = None if place is None else sweep_of(place)
    if found is None:
        return None
    return str(below(found.resolve(), Path.cwd()))
