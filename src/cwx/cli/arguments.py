"""The command line of a study: Hydra's options, and settings, refused in one line."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from cwx.cli.parser import called, refusal
from cwx.errors import UserError


def flags(argv: Sequence[str]) -> argparse.Namespace:
    """Hydra's options and, as ``overrides``, the settings.

    Raises:
        UserError: an option that there is not, two that exclude each other, or a word
            that is no setting.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(refusal(parser, message))

    parser.prog = called()
    parser.error = refuse  # type: ignore[method-assign]
    found = parser.parse_args(list(argv))
    shows = {"--cfg": found.cfg, "--info": found.info, "--multirun": found.multirun}
    if len(given := [name for name, value in shows.items() if value]) > 1:
        raise UserError(f"{' and '.join(given)} cannot be combined: leave one of them out")
    if not (found.help or found.hydra_help or found.shell_completion):
        for word in found.overrides:
            if "=" not in word and not word.startswith("~"):
                raise UserError(f"{word} is not a setting: write key=value")
    return found
