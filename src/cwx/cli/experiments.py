"""Which experiments there are, read from the files that state them.

The comment at the head of conf/experiment/<data>/<study>.yaml says

    the source and what is reproduced of it, in one sentence (``CWX §5: Figure 2 on CIFAR-10.``)
    whatever else is to be known, and commands, indented by three spaces
    ``Needs:``   what has to be there first
    ``Stated:``  what the paper says
    ``Chosen:``  what it leaves open, and how it was chosen
    ``Time:``    how long it took, and where that is told

Nothing is composed, so that reading takes milliseconds.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PARTS = ("Needs", "Stated", "Chosen", "Time")
_PART = re.compile(rf"({'|'.join(PARTS)}): ?(.*)")
# A full stop, but that of "et al." within a sentence.
_SENTENCE = re.compile(r"(.*?\.)(?:\s+(?=[^a-z])|$)", re.DOTALL)
_PLACEHOLDER = re.compile(r"<[\w ]+>")
# Of groups, the choices that leave a part out.
NOTHING = "none"
_JUDGE = "network@evaluation_networks."


@dataclass(frozen=True)
class Note:
    """Sentences, and the commands below them."""

    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What the file of an experiment says.

    Attributes:
        name: as in ``experiment=<name>``.
        file: where it lies.
        shows: the source, and what is reproduced of it; empty if the file does not say.
        remarks: what else stands at its head.
        parts: `PARTS` that it has, by name.
        choices: of each configuration group, as the file alone has them: a name, or several.
        extra: the folder that ``--config-dir`` has to name, if it is not one of ours.
    """

    name: str
    file: Path
    shows: str
    remarks: tuple[Note, ...]
    parts: Mapping[str, tuple[Note, ...]]
    choices: Mapping[str, str | tuple[str, ...]]
    extra: str | None = None

    @property
    def plain(self) -> str | None:
        """The command with no more than the name, unless the file has another for a single job."""
        if any(" -m " not in command for command in self._stated):
            return None
        option = f" --config-dir {shlex.quote(self.extra)}" if self.extra else ""
        return f"python run.py{option} experiment={self.name}"

    @property
    def commands(self) -> list[str]:
        """The plain one and those at the head of the file."""
        return [*([self.plain] if self.plain else []), *self._stated]

    @property
    def _stated(self) -> list[str]:
        notes = [*self.remarks, *(note for part in self.parts.values() for note in part)]
        return [command for note in notes for command in note.commands]

    def part(self, name: str) -> str:
        """The sentences of a part; empty if the file has none."""
        return " ".join(note.text for note in self.parts.get(name, ()))

    def chosen(self, group: str) -> tuple[str, ...]:
        """The choices of a group, or the names of the evaluation networks; none where a part is left out."""
        if group == "evaluation_networks":
            return tuple(g[len(_JUDGE) :] for g in self.choices if g.startswith(_JUDGE))
        found = self.choices.get(group, ())
        several = (found,) if isinstance(found, str) else found
        return tuple(one for one in several if one != NOTHING)

    @property
    def overrides(self) -> list[str]:
        """Those of the first command for a single job."""
        return overrides_of(next(one for one in self.commands if " -m " not in one))


def read_experiments(folder: Path, extra: str | None = None) -> dict[str, Experiment]:
    """All experiments by name, sorted.

    Args:
        folder: the configuration folder.
        extra: a further one, whose experiments are added and go before those of the same name.

    Raises:
        ValueError: a file is no YAML, or builds on one that is not there.
    """
    folders = [Path(extra), folder] if extra else [folder]
    found: dict[str, Experiment] = {}
    for place in reversed(folders):
        for file in sorted((place / "experiment").rglob("*.yaml")):
            name = str(file.relative_to(place / "experiment").with_suffix(""))
            found[name] = _read(name, file, folders, extra if place != folder else None)
    return dict(sorted(found.items()))


def overrides_of(command: str) -> list[str]:
    """The settings of a command, with something in place of what only a user knows.

    >>> overrides_of("python run.py -m data.source.root=<folder> 'seed=1,2'")
    ['data.source.root=x', 'seed=1,2']
    """
    return [word for word in shlex.split(_PLACEHOLDER.sub("x", command)) if "=" in word]


def scale_remarks(experiment: Experiment, folder: Path) -> list[str]:
    """What the files of ``scale=small`` for this study and its parts say that they change."""
    groups = ("data", "recipe", "dataset_construction", "fine_tuning")
    below = [f"{group}/{one}" for group in groups for one in experiment.chosen(group)]
    files = [
        folder / "scale/small" / f"{p}.yaml" for p in [*below, f"experiment/{experiment.name}"]
    ]
    heads = (head(file.read_text(encoding="utf-8")) for file in files if file.is_file())
    return [" ".join(note.text for note in found[""]) for found in heads if found[""]]


def head(text: str) -> dict[str, list[Note]]:
    """The notes at the head of a file, by part; those before the first part under "".

    >>> head("# A: b.\\n# So:\\n#   run -m \\\\\\n#     x=1\\n# Stated: c\\n# d.\\n")["Stated"]
    [Note(text='c d.', commands=())]
    """
    found: dict[str, list[Note]] = {"": []}
    part, words, commands = "", list[str](), list[str]()

    def end() -> None:
        if words or commands:
            found.setdefault(part, []).append(Note(" ".join(words), tuple(commands)))
        words.clear()
        commands.clear()

    for line in comment(text):
        if line.startswith("   "):
            _add_command(commands, line.strip())
            continue
        named = _PART.fullmatch(line.strip())
        if named or commands:
            end()
        if named:
            part, line = named[1], named[2]
        words.extend(line.split())
    end()
    return found


def comment(text: str) -> Iterator[str]:
    """The lines of a file's first comment, but what it says to Hydra."""
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        if not line.startswith("# @"):
            yield line[1:]


def _add_command(commands: list[str], line: str) -> None:
    if commands and commands[-1].endswith("\\"):
        commands[-1] = f"{commands[-1][:-1].rstrip()} {line}"
    else:
        commands.append(line)


def _read(name: str, file: Path, folders: Sequence[Path], extra: str | None) -> Experiment:
    found = head(file.read_text(encoding="utf-8"))
    shows, remarks = _first_sentence(found.pop(""))
    return Experiment(
        name=name,
        file=file,
        shows=shows,
        remarks=remarks,
        parts={part: tuple(notes) for part, notes in found.items()},
        choices={**_defaults(folders[-1] / "run.yaml", folders), **_defaults(file, folders)},
        extra=extra,
    )


def _first_sentence(notes: Sequence[Note]) -> tuple[str, tuple[Note, ...]]:
    if not notes or not (sentence := _SENTENCE.match(notes[0].text)):
        return "", tuple(notes)
    rest = Note(notes[0].text[sentence.end() :], notes[0].commands)
    return sentence[1], ((rest,) if rest.text or rest.commands else ()) + tuple(notes[1:])


def _defaults(file: Path, folders: Sequence[Path], depth: int = 0) -> dict[str, Any]:
    """The choices that a file's defaults list makes, after those of what it builds on."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from error
    chosen: dict[str, Any] = {}
    for entry in content.get("defaults", ()) if isinstance(content, dict) else ():
        for key, choice in ({str(entry): None} if isinstance(entry, str) else entry).items():
            group = key.split()[-1].lstrip("/")
            if choice is None and group != "_self_" and depth < 8:
                chosen |= _defaults(_base(group, file, folders), folders, depth + 1)
            elif choice is not None:
                chosen[group] = tuple(choice) if isinstance(choice, list) else str(choice)
    return chosen


def _base(name: str, file: Path, folders: Sequence[Path]) -> Path:
    """The experiment that another builds on."""
    below = name.removeprefix("experiment/").partition("@")[0]
    for folder in folders:
        if (base := folder / "experiment" / f"{below}.yaml").is_file():
            return base
    raise ValueError(f"{file} builds on {name}, which is not there: correct its defaults")
