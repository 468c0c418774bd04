"""Configuration groups: the folders of `conf/`, and the choices (files) of each."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import yaml

from cwx.errors import UserError, did_you_mean

_WIDTH = 100


def configuration_folder() -> Path:
    """The path of `conf/`: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).parents[2]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def configuration_folders(extra: str | None, folder: Path | None = None) -> list[Path]:
    """The folder of the package, and a further one of the user.

    Args:
        extra: a further configuration folder, from ``--config-dir``.
        folder: instead of the package's.

    Raises:
        UserError: the further folder does not exist.
    """
    if extra and not Path(extra).is_dir():
        raise UserError(
            f"--config-dir {extra} is not a folder: name the folder of your configuration"
        )
    return [folder or configuration_folder(), *([Path(extra).resolve()] if extra else [])]


def options(folders: Iterable[Path]) -> dict[str, set[str]]:
    """The files of each group, relative to the group's folder and without suffix.

    ``evaluation_networks`` has the files of ``network``.
    """
    files: dict[str, set[str]] = {}
    for folder in folders:
        for group in (path for path in folder.iterdir() if path.is_dir()):
            names = {str(f.relative_to(group).with_suffix("")) for f in group.rglob("*.yaml")}
            files.setdefault(group.name, set()).update(names)
    files["evaluation_networks"] = files.get("network", set())
    return files


def choices(group: str, folders: Iterable[Path]) -> list[str]:
    """What ``<group>=`` accepts, sorted; empty for an unknown group."""
    return selectable(options(folders).get(group, ()))


def selectable(names: Iterable[str]) -> list[str]:
    """Sorted names without those below another name: scale/small/… belong to scale/small."""
    known = set(names)
    return sorted(n for n in known if "/" not in n or n.partition("/")[0] not in known)


def check_choice(group: str, value: str, folders: Sequence[Path]) -> None:
    """Refuse values that Hydra does not take as the name of a choice, such as null."""
    if re.fullmatch(r"null|true|false|[\d.]*", value, re.IGNORECASE):
        raise UserError(unknown_choice(group, value, choices(group, folders)))


def unknown_choice(group: str, name: str, known: Sequence[str]) -> str:
    """The message that a group has no such choice."""
    remedy = did_you_mean(name, known, f"there are {', '.join(known)}", prefix=f"{group}=")
    return f"there is no {group}={name}: {remedy}"


def describe_choices(kind: Literal["study", "part"], folders: Sequence[Path]) -> str:
    """The groups and their choices, a paragraph each, for ``--help``.

    Args:
        kind: "study" for the groups in the defaults list of run.yaml, in that order; "part" for
            all other groups, which configure a part of these. Groups that are only optional there
            are chosen by other choices, and are not described.
        folders: configuration folders; the first holds run.yaml.
    """
    files = options(folders)
    study, automatic = _groups_of_study(folders[0])
    others = sorted({*files} - {*study, *automatic, "evaluation_networks", "hydra"})
    return "\n".join(
        textwrap.fill(
            f"{group}: {', '.join(selectable(files.get(group, ())))}",
            _WIDTH, initial_indent="  ", subsequent_indent="      ",
            break_long_words=False, break_on_hyphens=False,
        )
        for group in (study if kind == "study" else others)
    )  # fmt: skip


def _groups_of_study(folder: Path) -> tuple[list[str], set[str]]:
    """The groups in the defaults list of run.yaml, and those that are only optional there."""
    defaults = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))["defaults"]
    keys = [key.split() for entry in defaults if isinstance(entry, dict) for key in entry]
    groups = dict.fromkeys(key[-1].partition("@")[0] for key in keys if key[0] != "optional")
    optional = {key[-1].partition("@")[0] for key in keys if key[0] == "optional"}
    study = [group for group in groups if not group.startswith("hydra/")]
    return study, optional - groups.keys()
