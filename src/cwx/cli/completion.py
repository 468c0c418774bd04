"""Shell completion of commands, their options and folders, settings, and choices.

Hydra completes settings, but no choices in subfolders of a group, such as experiments. Its shell
scripts call ``-sc query=<shell>``, which is answered here.
"""

import importlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.completion_plugin import CompletionPlugin, DefaultCompletionPlugin

from cwx.cli.config import groups

# Between completions, as the shell's script splits them.
SEPARATORS = {"bash": " ", "zsh": " ", "fish": "\n"}


def print_completions(shell: str, commands: Iterable[str], folder: Path) -> None:
    """Print the completions of the line in the environment variable ``COMP_LINE``.

    Args:
        commands: the names of all commands.
        folder: the configuration folder.
    """
    line = CompletionPlugin.strip_python_or_app_name(os.environ.get("COMP_LINE", ""))
    print(SEPARATORS[shell].join(complete(line, commands, folder)))  # noqa: T201


def complete(line: str, commands: Iterable[str], folder: Path) -> list[str]:
    """All completions of the last word of `line`, sorted."""
    *words, word = [*line.split(), ""] if line[-1:] in ("", " ") else line.split()
    if words and words[0] in commands:
        return sorted(_complete_command(words[0], words[1:], word, folder))
    key, equals, value = word.partition("=")
    if equals and key == "resume":
        return sorted(f"resume={path}" for path in _folders(value))
    group = key.lstrip("+").partition("@")[0]
    choices = groups.choices(group, [folder]) if (folder / group).is_dir() else []
    if equals and choices:
        # After the last comma or bracket, for sweeps and lists.
        match = re.match(r"(?:.*[\[,])?", value)
        head = match[0] if match else ""
        return sorted(f"{key}={head}{c}" for c in choices if c.startswith(value[len(head) :]))
    names = {command for command in commands if not words and command.startswith(word)}
    return sorted(names | _settings(line, folder))


def _complete_command(command: str, words: Sequence[str], word: str, folder: Path) -> set[str]:
    parser = importlib.import_module(f"cwx.cli.commands.{command}").parser()
    if word.startswith("-"):
        names = {name for action in parser._actions for name in action.option_strings}
        return {name for name in names if name.startswith(word) and name not in words}
    if command == "experiments" and words[-1:] != ["--config-dir"]:
        return {name for name in groups.options([folder])["experiment"] if name.startswith(word)}
    actions = {"experts": ("ls", "prune")}.get(command, ()) if not words else ()
    return {action for action in actions if action.startswith(word)} or _folders(word)


def _folders(prefix: str) -> set[str]:
    """The folders whose path starts with `prefix`, each with a slash at its end."""
    parent = Path(prefix if prefix.endswith("/") else os.path.dirname(prefix))  # noqa: PTH120
    try:
        names = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
    except OSError:
        return set()
    visible = [name for name in names if not name.startswith(".")]
    head = prefix[: prefix.rfind("/") + 1]
    return {f"{head}{name}/" for name in visible if f"{head}{name}".startswith(prefix)}


def _settings(line: str, folder: Path) -> set[str]:
    """Hydra's completions."""
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    with initialize_config_dir(version_base="1.3", config_dir=str(folder.resolve())):
        hydra = DefaultCompletionPlugin(GlobalHydra.instance().config_loader())
        try:
            completions = hydra._query("run", line)
        except Exception:
            # An incomplete line need not be valid, and a traceback would end up on it.
            return set()
    # A group is completed as `group=`, without the subfolders of its choices.
    return {
        f"{name.rstrip('/')}=" if name.rstrip("/") in names else str(name)
        for name in completions
        if not (name.partition("/")[0] in names and name.partition("/")[2])
        and not name.startswith("_")
    }
