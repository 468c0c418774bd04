"""What a run is called, by its folder and its settings, where others show it (W&B).

Each is of no meaning while a configuration is only checked or shown.
"""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from cwx.runs import Run, sweep_of

_UNKNOWN = "unnamed"


def register_resolvers() -> None:
    """What configuration files may ask of the run they belong to, beside `cwx.main`'s."""
    for name, resolver in (("choice", choice), ("run_name", run_name), ("sweep", sweep)):
        OmegaConf.register_new_resolver(name, resolver, replace=True)


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


def run_name() -> str:
    """The experiment, and what a sweep varies.

    ``cifar10/noise small corruption.rate=0.75``
    """
    place = folder()
    scale = choice("scale")
    words = [choice("experiment"), *([] if scale in ("paper", _UNKNOWN) else [scale])]
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
    found = found.resolve()
    here = Path.cwd()
    return str(found.relative_to(here) if found.is_relative_to(here) else found)
