"""Command lines of the commands: errors in one line, with the nearest name that exists."""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from cwx.errors import UserError, did_you_mean, printable

# The most names that an error message lists.
_MOST = 12


class Parser(argparse.ArgumentParser):
    """Raises `UserError` with the nearest option instead of exiting."""

    def __init__(self, command: str, *, does: str, examples: str) -> None:
        super().__init__(
            prog=f"{program_name()} {command}".strip(),
            description=does,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(refusal_message(self, message))


def program_name() -> str:
    """How the user started this program, for examples: "python run.py" or "cwx"."""
    return "python run.py" if Path(sys.argv[0]).suffix == ".py" else "cwx"


def refusal_message(parser: argparse.ArgumentParser, message: str) -> str:
    """Argparse's message, with the nearest option if it does not know one."""
    unknown = re.match(r"unrecognized arguments: (\S+)", message)
    if unknown is None:
        return f"{message} (see {parser.prog} --help)"
    option = unknown[1].partition("=")[0]
    options = [name for action in parser._actions for name in action.option_strings]
    return f"there is no {option}: {suggestion(option, options)} (see {parser.prog} --help)"


def suggestion(name: str, known: Iterable[str]) -> str:
    """The nearest known name; without a near one, the known names, at most `_MOST`."""
    names = [printable(known_name) for known_name in sorted(known)]
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return did_you_mean(name, names, f"there are {', '.join(names[:_MOST])}{more}")


def existing_directory(name: str) -> Path:
    """The path of a directory that exists.

    Raises:
        UserError: there is none; names the nearest one beside it.
    """
    directory = Path(name)
    if directory.is_dir():
        return directory
    problem = "is a file, not a folder" if directory.exists() else "is not there"
    parent = directory.parent if directory.parent.is_dir() else None
    names = [p.name for p in parent.iterdir() if p.is_dir()] if parent else []
    prefix = f"{directory.parent}/" if directory.parent != Path() else ""
    remedy = did_you_mean(directory.name, names, "name a folder", prefix=prefix, cutoff=0.6)
    raise UserError(f"{printable(name)} {problem}: {printable(remedy)}")
