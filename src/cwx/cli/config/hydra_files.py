"""What Hydra has saved of a run or of a sweep, by which it is continued."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cwx.cli.config.validate import difference
from cwx.errors import UserError

SAVED = Path(".hydra")


def read(file: Path) -> Any:
    """A file of Hydra's, as OmegaConf has it.

    Raises:
        UserError: it is damaged.
    """
    try:
        return OmegaConf.load(file)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{file} cannot be read ({type(error).__name__}), and with it what was started: "
            "restore it, or start anew"
        ) from error


def overrides(run: Path) -> list[str]:
    """The settings that a run was started with."""
    return [str(line) for line in read(run / SAVED / "overrides.yaml")]


def check_unchanged(
    now: Mapping[str, Any], run: Path, chosen: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Refuse to continue a run with a configuration that is not the one it was started with.

    Args:
        chosen: drops what was left out.

    Raises:
        UserError: with the first difference.
    """
    before: Any = OmegaConf.to_container(read(run / SAVED / "config.yaml"), resolve=True)
    before = chosen(before)
    before.pop("optimize", None)
    if changed := difference(before, now):
        raise UserError(
            f"the configuration files have changed since {run} was started ({changed}): "
            "restore them to continue it, or start anew"
        )
