"""Command lines: refusals in one line, with the nearest thing that exists."""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from cwx.cli.tables import plain
from cwx.errors import UserError, did_you_mean

# Of names that a refusal lists.
_MOST = 12


class Parser(argparse.ArgumentParser):
    """Refuses with a `UserError`, and knows the nearest option."""

    def __init__(self, command: str, *, does: str, examples: str) -> None:
        super().__init__(
            prog=f"{called()} {command}".strip(),
            description=does,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(refusal(self, message))


def called() -> str:
    """How this program was called, for examples."""
    return "python run.py" if Path(sys.argv[0]).suffix == ".py" else "cwx"


def refusal(parser: argparse.ArgumentParser, message: str) -> str:
    """What argparse refuses, with the nearest option where it does not know one."""
    unknown = re.match(r"unrecognized arguments: (\S+)", message)
    if unknown is None:
        return f"{message} (see {parser.prog} --help)"
    given = unknown[1].partition("=")[0]
    options = [name for action in parser._actions for name in action.option_strings]
    return f"there is no {given}: {meant(given, options)} (see {parser.prog} --help)"


def meant(given: str, known: Iterable[str]) -> str:
    """The nearest of what is known, or all of it if that is not much."""
    names = [plain(name) for name in sorted(known)]
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return did_you_mean(given, names, f"there are {', '.join(names[:_MOST])}{more}")


def existing_folder(given: str) -> Path:
    """A folder that is there.

    Raises:
        UserError: it is not; with its nearest neighbour.
    """
    folder = Path(given)
    if folder.is_dir():
        return folder
    what = "is a file, not a folder" if folder.exists() else "is not there"
    beside = folder.parent if folder.parent.is_dir() else None
    names = [p.name for p in beside.iterdir() if p.is_dir()] if beside else []
    above = f"{folder.parent}/" if folder.parent != Path() else ""
    remedy = did_you_mean(folder.name, names, "name a folder", prefix=above, cutoff=0.6)
    raise UserError(f"{plain(given)} {what}: {plain(remedy)}")
