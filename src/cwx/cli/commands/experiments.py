"""`cwx experiments`: what can be run, of which paper it is, and how it is stated."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cwx.cli.commands.experiments_markdown import GROUPS, page
from cwx.cli.config.compose import compose_checked, configuration_folder
from cwx.cli.experiments import PARTS, Experiment, Note, read_experiments
from cwx.cli.parser import Parser, called, existing_folder, meant
from cwx.cli.tables import Cell, plain, say, table
from cwx.errors import UserError

_WIDTH = 92
# Of a list that is shown whole.
_MOST = 10


def parser() -> Parser:
    name = f"{called()} experiments"
    parsed = Parser(
        "experiments",
        does="List the experiments, or show one whole: what it reproduces, what is stated and\n"
        "what chosen, its commands, and how large it is at scale=small.",
        examples=f"""  {name}                                   all of them
  {name} 'svhn/*' digits/iscp              some
  {name} cifar10/cwx                       one, whole
  {name} --config-dir mine                 yours as well
  {name} --markdown                        as in docs/experiments.md""",
    )
    parsed.add_argument("names", nargs="*", metavar="name", help="* stands for anything")
    parsed.add_argument(
        "--config-dir", metavar="FOLDER", help="a configuration folder of yours, beside ours"
    )
    shape = parsed.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="everything known, for programs")
    shape.add_argument("--markdown", action="store_true", help="as docs/experiments.md has them")
    return parsed


def main(argv: Sequence[str]) -> None:
    """List experiments, or show one.

    Raises:
        UserError: there is none of such a name.
    """
    asked = parser().parse_intermixed_args(argv)
    extra = str(existing_folder(asked.config_dir)) if asked.config_dir else None
    folder = configuration_folder()
    chosen = _chosen(read_experiments(folder, extra), asked.names)
    if asked.json:
        say(json.dumps([_described(one) for one in chosen], indent=2))
    elif asked.markdown:
        say(page(chosen, folder))
    elif asked.names and len(chosen) == 1:
        say("\n".join(_whole(chosen[0], folder)))
    else:
        header = ["experiment", "network", "methods", "what it shows"]
        say(table(header, [_row(one) for one in chosen], shrink=3))


def _chosen(found: Mapping[str, Experiment], names: Sequence[str]) -> list[Experiment]:
    for name in names:
        if not any(fnmatchcase(known, name) for known in found):
            raise UserError(f"there is no experiment {plain(name)}: {meant(name, found)}")
    wanted = names or ["*"]
    return [one for name, one in found.items() if any(fnmatchcase(name, w) for w in wanted)]


def _row(one: Experiment) -> list[Cell]:
    return [one.name, ", ".join(one.chosen("network")), ", ".join(one.chosen("method")), one.shows]


def _described(one: Experiment) -> dict[str, Any]:
    return {
        "name": one.name,
        "shows": one.shows,
        "remarks": [note.text for note in one.remarks],
        "commands": one.commands,
        **{part.lower(): one.part(part) for part in PARTS},
        "choices": dict(one.choices),
        "file": str(one.file),
    }


def _whole(one: Experiment, folder: Path) -> Iterator[str]:
    yield plain(one.name)
    yield from _wrapped(one.shows, "")
    for place, note in enumerate(one.parts.get("Needs", ())):
        yield from ("", *_note(note if place else replace(note, text=f"Needs {note.text}")))
    if one.plain:
        yield from ("", f"  {_command(one.plain)}")
    for note in one.remarks:
        yield from ("", *_note(note))
    yield ""
    for what, text in _facts(one):
        yield from _wrapped(text, f"{what:<14}")
    yield ""
    rows = _reduced(one, folder)
    yield f"scale=small changes{'' if rows else ' nothing'}"
    if rows:
        yield table(["  setting", "paper", "small"], rows, shrink=2)


def _note(note: Note) -> Iterator[str]:
    yield from _wrapped(note.text, "")
    yield from (f"  {_command(command)}" for command in note.commands)


def _command(command: str) -> str:
    return plain(command.replace("python run.py", called(), 1))


def _facts(one: Experiment) -> Iterator[tuple[str, str]]:
    for group in GROUPS:
        if chosen := one.chosen(group):
            yield group, ", ".join(chosen)
    for part in PARTS:
        if part != "Needs" and (text := one.part(part)):
            yield part.lower(), text
    yield "file", str(one.file)


def _wrapped(text: str, start: str) -> list[str]:
    return textwrap.wrap(
        plain(text), _WIDTH, initial_indent=start, subsequent_indent=" " * len(start),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _reduced(one: Experiment, folder: Path) -> list[list[Cell]]:
    """The settings in which scale=small differs, as both have them."""
    # Hydra takes half a second to import, which a list can do without.
    from cwx.cli.resolvers import register_resolvers
    from cwx.cli.run import import_from

    register_resolvers()
    if one.extra:
        import_from(one.extra)
    paper, small = (
        dict(_settings(_composed(folder, one, scale), "")) for scale in ("paper", "small")
    )
    names = [*paper, *(name for name in small if name not in paper)]
    return [
        [f"  {name}", paper.get(name, "-"), small.get(name, "-")]
        for name in names
        if paper.get(name) != small.get(name)
    ]


def _composed(folder: Path, one: Experiment, scale: str) -> dict[str, Any]:
    overrides = [*one.overrides, f"scale={scale}"]
    return compose_checked(folder, overrides, multirun=False, extra=one.extra, resumed=None)


def _settings(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Each setting by its name, as on a command line."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _settings(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list) and len(value) > _MOST:
        yield place, f"[{value[0]},{value[1]},…,{value[-1]}]"
    else:
        yield place, json.dumps(value).replace('"', "").replace(" ", "")
