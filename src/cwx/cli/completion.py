"""What the tab key offers: commands, their options and folders, settings, and choices.

Hydra completes settings; of a group's choices it knows those alone that lie in no folder, as every
experiment does. Its shell scripts ask this program (``-sc query=<shell>``), which answers here.
"""

import importlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.completion_plugin import CompletionPlugin, DefaultCompletionPlugin

from cwx.cli.config.compose import options

# Between what it offers, as the shell's script takes it.
BETWEEN = {"bash": " ", "zsh": " ", "fish": "\n"}


def answer(shell: str, commands: Iterable[str], folder: Path) -> None:
    """Print what the line that the shell hands over may go on with.

    Args:
        commands: the names of all.
        folder: the configuration folder.
    """
    line = CompletionPlugin.strip_python_or_app_name(os.environ.get("COMP_LINE", ""))
    print(BETWEEN[shell].join(complete(line, commands, folder)))  # noqa: T201


def complete(line: str, commands: Iterable[str], folder: Path) -> list[str]:
    """Every last word that the arguments in `line` may have, in order."""
    *words, word = [*line.split(), ""] if line[-1:] in ("", " ") else line.split()
    if words and words[0] in commands:
        return sorted(_of_command(words[0], words[1:], word, folder))
    key, given, value = word.partition("=")
    if given and key == "resume":
        return sorted(f"resume={found}" for found in _folders(value))
    choices = _choices(key.lstrip("+").partition("@")[0], folder)
    if given and choices:
        # Several, to sweep over or in a list.
        before = re.match(r"(?:.*[\[,])?", value)
        head = before[0] if before else ""
        return sorted(f"{key}={head}{c}" for c in choices if c.startswith(value[len(head) :]))
    found = {command for command in commands if not words and command.startswith(word)}
    return sorted(found | _settings(line, folder))


def _of_command(command: str, words: Sequence[str], word: str, folder: Path) -> set[str]:
    parser = importlib.import_module(f"cwx.cli.commands.{command}").parser()
    if word.startswith("-"):
        names = {name for action in parser._actions for name in action.option_strings}
        return {name for name in names if name.startswith(word) and name not in words}
    if command == "experiments" and words[-1:] != ["--config-dir"]:
        return {name for name in options([folder])["experiment"] if name.startswith(word)}
    actions = {"experts": ("ls", "prune")}.get(command, ()) if not words else ()
    return {action for action in actions if action.startswith(word)} or _folders(word)


def _folders(begun: str) -> set[str]:
    """Folders that begin so, each with a slash to go on from."""
    above = Path(begun if begun.endswith("/") else os.path.dirname(begun))  # noqa: PTH120
    try:
        names = [entry.name for entry in os.scandir(above) if entry.is_dir()]
    except OSError:
        return set()
    shown = [name for name in names if not name.startswith(".")]
    head = begun[: begun.rfind("/") + 1]
    return {f"{head}{name}/" for name in shown if f"{head}{name}".startswith(begun)}


def _choices(group: str, folder: Path) -> list[str]:
    names = options([folder]).get(group, set()) if (folder / group).is_dir() else set()
    # Files below another choice are not chosen by themselves.
    return [name for name in names if "/" not in name or name.partition("/")[0] not in names]


def _settings(line: str, folder: Path) -> set[str]:
    """What Hydra offers."""
    groups = {path.name for path in folder.iterdir() if path.is_dir()}
    with initialize_config_dir(version_base="1.3", config_dir=str(folder.resolve())):
        hydra = DefaultCompletionPlugin(GlobalHydra.instance().config_loader())
        try:
            offered = hydra._query("run", line)
        except Exception:
            # What is typed so far need not be right yet; a traceback would only fill the line.
            return set()
    # Groups stand alone, with their choices and not the folders that these lie in.
    return {
        f"{name.rstrip('/')}=" if name.rstrip("/") in groups else str(name)
        for name in offered
        if not (name.partition("/")[0] in groups and name.partition("/")[2])
        and not name.startswith("_")
    }
