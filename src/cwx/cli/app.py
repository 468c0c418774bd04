"""The entry of `cwx` and `python run.py`: runs a command, or else a study.

Modules are imported only once they are needed, so that commands and help start quickly.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from cwx.cli.failures import exit_with_message
from cwx.cli.signals import exit_status_of_signals
from cwx.errors import UserError, printable

# Each command is the module of its name in cwx.cli.commands, with a function `main(argv)`.
COMMANDS = {
    "inspect": "explain a network from a file of weights and a folder of images",
    "ls": "list runs",
    "report": "write a page of runs",
    "agreement": "compare LC with volunteers' answers about pairs of neurons",
    "experts": "list and prune the store",
    "experiments": "list the experiments",
}


def main() -> None:
    """Run what the command line asks for."""
    with exit_status_of_signals():
        _dispatch(sys.argv[1:])


def _dispatch(argv: Sequence[str]) -> None:
    if argv and argv[0] in COMMANDS:
        _run_command(argv[0], argv[1:])
    elif argv and _is_word(argv[0]):
        exit_with_message(_unknown_command(argv[0]))
    elif {"-h", "--help"} & {*argv}:
        _print_help(argv)
    elif len(argv) == 2 and argv[0] in ("-sc", "--shell-completion"):
        _complete(argv[1])
    else:
        from cwx.cli.run import main as run_study

        run_study()


def _run_command(name: str, argv: Sequence[str]) -> None:
    try:
        importlib.import_module(f"cwx.cli.commands.{name}").main(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe; the interpreter must not flush the rest into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        # A UserError, or files of a run that cannot be read.
        exit_with_message(error)


def _print_help(argv: Sequence[str]) -> None:
    from cwx.cli.help import help_text
    from cwx.cli.tables import print_text

    try:
        print_text(help_text(argv))
    except UserError as error:
        exit_with_message(error)


def _complete(request: str) -> None:
    from cwx.cli.completion import SEPARATORS, print_completions
    from cwx.cli.config.groups import configuration_folder
    from cwx.cli.resolvers import register_resolvers
    from cwx.cli.run import main as run_study

    action, _, shell = request.partition("=")
    if action == "query" and shell in SEPARATORS:
        register_resolvers()
        print_completions(shell, COMMANDS, configuration_folder())
    else:
        # Hydra prints its script for the shell.
        run_study()


def _is_word(argument: str) -> bool:
    """Whether an argument is neither an option nor a setting."""
    return not argument.startswith(("-", "~")) and "=" not in argument


def _unknown_command(word: str) -> str:
    from cwx.cli.parser import program_name, suggestion

    remedy = suggestion(word, COMMANDS)
    return (
        f"there is no command {printable(word)}: {remedy} "
        f"(a setting is key=value; {program_name()} --help)"
    )
