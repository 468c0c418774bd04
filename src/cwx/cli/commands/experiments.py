"""`cwx experiments`: lists the experiments, or shows one with its sources and settings."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cwx.cli.commands.experiments_markdown import GROUPS, page
from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import configuration_folder
from cwx.cli.experiments import PARTS, Experiment, Note, read_experiments
from cwx.cli.parser import Parser, existing_directory, program_name, suggestion
from cwx.cli.tables import Cell, print_text, table
from cwx.errors import UserError, printable

_WIDTH = 92
# The longest list of values that is printed in full.
_MOST = 10


def parser() -> Parser:
    name = f"{program_name()} experiments"
    arguments = Parser(
        "experiments",
        does="List the experiments, or show one: its source, the settings that the paper states,\n"
        "the chosen ones, its commands, and what scale=small changes.",
        examples=f"""  {name}                                   all experiments
  {name} 'svhn/*' digits/iscp              some
  {name} cifar10/cwx                       one, in full
  {name} --config-dir mine                 with your own
  {name} --markdown                        as in docs/experiments.md""",
    )
    arguments.add_argument("names", nargs="*", metavar="name", help="* matches anything")
    arguments.add_argument(
        "--config-dir", metavar="FOLDER", help="your own configuration folder, beside ours"
    )
    shape = arguments.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="as JSON, for programs")
    shape.add_argument("--markdown", action="store_true", help="as in docs/experiments.md")
    return arguments


def main(argv: Sequence[str]) -> None:
    """List experiments, or show one.

    Raises:
        UserError: no experiment has such a name.
    """
    arguments = parser().parse_intermixed_args(argv)
    extra = str(existing_directory(arguments.config_dir)) if arguments.config_dir else None
    folder = configuration_folder()
    experiments = _select(read_experiments(folder, extra), arguments.names)
    if arguments.json:
        print_text(json.dumps([_as_json(experiment) for experiment in experiments], indent=2))
    elif arguments.markdown:
        print_text(page(experiments, folder))
    elif arguments.names and len(experiments) == 1:
        print_text("\n".join(_in_full(experiments[0], folder)))
    else:
        header = ["experiment", "network", "methods", "summary"]
        print_text(table(header, [_row(experiment) for experiment in experiments], shrink=3))


def _select(experiments: Mapping[str, Experiment], names: Sequence[str]) -> list[Experiment]:
    for name in names:
        if not any(fnmatchcase(known, name) for known in experiments):
            raise UserError(
                f"there is no experiment {printable(name)}: {suggestion(name, experiments)}"
            )
    patterns = names or ["*"]
    return [e for name, e in experiments.items() if any(fnmatchcase(name, p) for p in patterns)]


def _row(experiment: Experiment) -> list[Cell]:
    networks, methods = experiment.choices_of("network"), experiment.choices_of("method")
    return [experiment.name, ", ".join(networks), ", ".join(methods), experiment.summary]


def _as_json(experiment: Experiment) -> dict[str, Any]:
    return {
        "name": experiment.name,
        "shows": experiment.summary,
        "remarks": [note.text for note in experiment.remarks],
        "commands": experiment.commands,
        **{part.lower(): experiment.part(part) for part in PARTS},
        "choices": dict(experiment.choices),
        "file": str(experiment.file),
    }


def _in_full(experiment: Experiment, folder: Path) -> Iterator[str]:
    yield printable(experiment.name)
    yield from _wrapped(experiment.summary, "")
    for index, note in enumerate(experiment.parts.get("Needs", ())):
        yield from ("", *_note(note if index else replace(note, text=f"Needs {note.text}")))
    if experiment.basic_command:
        yield from ("", f"  {_command(experiment.basic_command)}")
    for note in experiment.remarks:
        yield from ("", *_note(note))
    yield ""
    for label, text in _facts(experiment):
        yield from _wrapped(text, f"{label:<21}")
    yield ""
    rows = _scale_differences(experiment, folder)
    yield f"scale=small changes{'' if rows else ' nothing'}"
    if rows:
        yield table(["  setting", "paper", "small"], rows, shrink=2)


def _note(note: Note) -> Iterator[str]:
    yield from _wrapped(note.text, "")
    yield from (f"  {_command(command)}" for command in note.commands)


def _command(command: str) -> str:
    return printable(command.replace("python run.py", program_name(), 1))


def _facts(experiment: Experiment) -> Iterator[tuple[str, str]]:
    for group in GROUPS:
        if choices := experiment.choices_of(group):
            yield group, ", ".join(choices)
    for part in PARTS:
        if part != "Needs" and (text := experiment.part(part)):
            yield part.lower(), text
    yield "file", str(experiment.file)


def _wrapped(text: str, start: str) -> list[str]:
    return textwrap.wrap(
        printable(text), _WIDTH, initial_indent=start, subsequent_indent=" " * len(start),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _scale_differences(experiment: Experiment, folder: Path) -> list[list[Cell]]:
    """The settings that scale=small changes, with both values."""
    # Importing Hydra takes half a second, which a list does not need.
    from cwx.cli.resolvers import register_resolvers
    from cwx.cli.run import add_to_import_path

    register_resolvers()
    if experiment.extra:
        add_to_import_path(experiment.extra)
    paper, small = (
        dict(_settings(_compose(folder, experiment, scale), "")) for scale in ("paper", "small")
    )
    names = [*paper, *(name for name in small if name not in paper)]
    return [
        [f"  {name}", paper.get(name, "-"), small.get(name, "-")]
        for name in names
        if paper.get(name) != small.get(name)
    ]


def _compose(folder: Path, experiment: Experiment, scale: str) -> dict[str, Any]:
    overrides = [*experiment.overrides, f"scale={scale}"]
    return compose_checked(folder, overrides, multirun=False, extra=experiment.extra, resumed=None)


def _settings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """The full name and the value of each setting, as on a command line."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _settings(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and len(value) > _MOST:
        yield path, f"[{value[0]},{value[1]},…,{value[-1]}]"
    else:
        yield path, json.dumps(value).replace('"', "").replace(" ", "")
