"""The entry: `cwx` and `python run.py`. A command, or else a study.

Nothing is imported before it is known what is asked for, so that looking is quick.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from cwx.cli.failures import stop

# Each is the module of its name in cwx.cli.commands, with `main(argv)`.
COMMANDS = {
    "ls": "list runs",
    "report": "write a page of runs",
    "experts": "list and prune the store",
    "experiments": "list what can be run",
}


def main() -> None:
    """Do what the command line says."""
    try:
        _main(sys.argv[1:])
    except KeyboardInterrupt:
        # As shells know it; what there is to say of a study has been said.
        sys.exit(130)


def _main(argv: Sequence[str]) -> None:
    if argv and argv[0] in COMMANDS:
        _command(argv[0], argv[1:])
    elif argv and _is_word(argv[0]):
        stop(_unknown(argv[0]))
    elif len(argv) == 2 and argv[0] in ("-sc", "--shell-completion"):
        _complete(argv[1])
    else:
        from cwx.cli.run import main as study

        study()


def _command(name: str, argv: Sequence[str]) -> None:
    try:
        importlib.import_module(f"cwx.cli.commands.{name}").main(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough; the interpreter must not flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        # A UserError, or what a run's files make impossible.
        stop(error)


def _complete(asked: str) -> None:
    from cwx.cli.completion import BETWEEN, answer
    from cwx.cli.config.compose import configuration_folder
    from cwx.cli.resolvers import register_resolvers
    from cwx.cli.run import main as study

    what, _, shell = asked.partition("=")
    if what == "query" and shell in BETWEEN:
        register_resolvers()
        answer(shell, COMMANDS, configuration_folder())
    else:
        # Hydra's script for the shell.
        study()


def _is_word(argument: str) -> bool:
    """Whether it is neither an option nor a setting."""
    return not argument.startswith(("-", "~")) and "=" not in argument


def _unknown(word: str) -> str:
    from cwx.cli.parser import called, meant
    from cwx.cli.tables import plain

    remedy = meant(word, COMMANDS)
    return (
        f"there is no command {plain(word)}: {remedy} (a setting is key=value; {called()} --help)"
    )
