"""The sweep of `cwx inspect` over several files of weights."""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from cwx.cli.commands.inspect_results import FAILURE
from cwx.cli.config.compose import directory_override, explicit_directory
from cwx.cli.config.groups import configuration_folder
from cwx.cli.config.override_text import override, parse_override
from cwx.errors import UserError
from cwx.storage.atomic import write_text

if TYPE_CHECKING:
    from cwx.study.inspection import Inspection

_SWEEP_DIRECTORY = "hydra.sweep.dir="
# What would make other jobs than one for each file, or other folders than their numbers.
_KEPT = ("hydra.sweep.subdir", "hydra/sweeper")


def run_sweep(
    weights: Sequence[Path],
    inspections: Sequence["Inspection"],
    overrides: Sequence[str],
    run: Callable[[Sequence[str]], object],
) -> tuple[Path, bool]:
    """Run a sweep of `experiment=inspect` over the files of weights, a job for each.

    Each file has its own settings: an option of a configuration group beside the sweep.

    Args:
        run: runs a command line of `run.py`.

    Returns:
        The folder of the sweep, and whether a job of it has failed; the others have results.
    """
    folder = Path("runs/inspect") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    configurations = folder.with_name(f"{folder.name}.settings")
    for word in overrides:
        parsed = parse_override(word)
        if parsed.key_or_group in _KEPT or parsed.is_sweep_override():
            raise UserError(
                f"{word} cannot be set with several files of weights, which are one job each: "
                "leave it out, or inspect one file"
            )
    # The time in a directory such as out/${now:%H-%M} is that of this moment.
    study = ["experiment=inspect", *overrides]
    own = explicit_directory(configuration_folder(), study, extra=None, multirun=True)
    folder = own or folder
    overrides = [word for word in overrides if not word.lstrip("+").startswith(_SWEEP_DIRECTORY)]
    group = configurations / "inspected"
    group.mkdir(parents=True)
    names = []
    for index, (path, inspection) in enumerate(zip(weights, inspections, strict=True)):
        names.append(f"{index}-{_plain(path.stem)}")
        write_text(group / f"{names[-1]}.yaml", settings_yaml(inspection.settings))
    command = [
        "--config-dir", str(configurations), "experiment=inspect", f"+inspected={','.join(names)}",
        *overrides, directory_override("sweep", folder),
    ]  # fmt: skip
    paths = {str(found.import_path.resolve()) for found in inspections if found.import_path}
    if paths:
        # Jobs are processes of their own.
        earlier = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([*([earlier] if earlier else []), *paths])
    try:
        run(["--multirun", *command])
    except SystemExit as error:
        if error.code != FAILURE or not folder.exists():
            raise
        return folder, True
    return folder, False


def _plain(name: str) -> str:
    """A file's name in letters that are safe in a setting."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:60]


def settings_yaml(settings: Mapping[str, Any]) -> str:
    """Settings as an option of a configuration group."""
    choices = {key: value for key, value in settings.items() if key in ("method", "evaluation")}
    rest = {key: value for key, value in settings.items() if key not in (*choices, "network")}
    config = OmegaConf.create()
    for key, value in rest.items():
        # Refuses interpolations.
        override(key, value)
        OmegaConf.update(config, key, value)
    defaults: list[Any] = [{f"override /{key}": value} for key, value in choices.items()]
    if "network" in settings:
        defaults.append({"override /network": settings["network"]})
    head = OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"]}))
    return f"# @package _global_\n{head}{OmegaConf.to_yaml(config)}"
