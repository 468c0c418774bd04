"""Parses the command line of a study: Hydra's options, and settings."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from cwx.cli.parser import program_name, refusal_message
from cwx.errors import UserError


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Hydra's options and, as ``overrides``, the settings.

    Raises:
        UserError: an unknown option, two options that exclude each other, or a word that is not
            a setting.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(refusal_message(parser, message))

    parser.prog = program_name()
    parser.error = refuse  # type: ignore[method-assign]
    arguments = parser.parse_args(list(argv))
    exclusive = {
        "--cfg": arguments.cfg,
        "--info": arguments.info,
        "--multirun": arguments.multirun,
    }
    if len(options := [name for name, value in exclusive.items() if value]) > 1:
        raise UserError(f"{' and '.join(options)} cannot be combined: leave one of them out")
    _refuse_without_effect(arguments)
    if not (arguments.help or arguments.hydra_help or arguments.shell_completion):
        for word in arguments.overrides:
            if "=" not in word and not word.startswith("~"):
                raise UserError(f"{word} is not a setting: write key=value")
            if not word.partition("=")[0].strip("~+ "):
                raise UserError(f"{word} names no setting: write key=value")
    return arguments


def _refuse_without_effect(arguments: argparse.Namespace) -> None:
    """Refuse options of Hydra that this program does not use, or that need another option."""
    for option, value, remedy in (
        ("--config-name", arguments.config_name, "choose experiment=<name>"),
        ("--config-path", arguments.config_path, "add your folder with --config-dir <folder>"),
        ("--experimental-rerun", arguments.experimental_rerun, "continue a run with resume=<run>"),
    ):
        if value is not None:
            raise UserError(f"{option} {value} is not supported: {remedy}")
    for option, given in (("--package", arguments.package), ("--resolve", arguments.resolve)):
        if given and not arguments.cfg:
            raise UserError(f"{option} is for --cfg: add --cfg job, or leave it out")
