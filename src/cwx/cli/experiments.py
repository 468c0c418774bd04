"""Reads the experiments from the comments and defaults lists of their files.

The comment at the head of conf/experiment/<data>/<study>.yaml says

    summary      the source and its reproduced part: ``CWX §5: Figure 2 on CIFAR-10.``
    remarks      further sentences, and commands, indented by three spaces
    ``Needs:``   files that must exist first
    ``Stated:``  settings that the paper states
    ``Chosen:``  settings that the paper leaves open, and their choice
    ``Time:``    the measured duration, and the page that reports it

Hydra composes nothing here, so that reading takes milliseconds.
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
# Up to a full stop; that of "et al." before a lower-case letter does not end a sentence.
_SENTENCE = re.compile(r"(.*?\.)(?:\s+(?=[^a-z])|$)", re.DOTALL)
_PLACEHOLDER = re.compile(r"<[\w ]+>")
# The choice of a group that leaves its part out.
NOTHING = "none"
_EVALUATION_NETWORK = "network@evaluation_networks."
# The C loader is ten times as fast, but not available everywhere.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Note:
    """Sentences, and the commands below them."""

    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The description of an experiment in its file.

    Attributes:
        name: as in ``experiment=<name>``.
        file: the path of its file.
        summary: the source and its reproduced part, in one sentence; empty without one.
        remarks: the other notes before `parts`.
        parts: the notes of each of `PARTS` in the file.
        choices: the choice, or the choices, of each configuration group, without scale.
        extra: the ``--config-dir`` of an experiment outside our configuration folder.
    """

    name: str
    file: Path
    summary: str
    remarks: tuple[Note, ...]
    parts: Mapping[str, tuple[Note, ...]]
    choices: Mapping[str, str | tuple[str, ...]]
    extra: str | None = None

    @property
    def basic_command(self) -> str | None:
        """The command with only the name; ``None`` if the file has another for a single run."""
        if any(" -m " not in command for command in self._file_commands):
            return None
        option = f" --config-dir {shlex.quote(self.extra)}" if self.extra else ""
        return f"python run.py{option} experiment={self.name}"

    @property
    def commands(self) -> list[str]:
        """`basic_command`, and the commands in the file's comment."""
        return [*([self.basic_command] if self.basic_command else []), *self._file_commands]

    @property
    def _file_commands(self) -> list[str]:
        notes = [*self.remarks, *(note for part in self.parts.values() for note in part)]
        return [command for note in notes for command in note.commands]

    def part(self, name: str) -> str:
        """The text of a part; empty if the file has none."""
        return " ".join(note.text for note in self.parts.get(name, ()))

    def choices_of(self, group: str) -> tuple[str, ...]:
        """The choices of a group, without "none"; the names of the ``evaluation_networks``."""
        if group == "evaluation_networks":
            return tuple(
                g[len(_EVALUATION_NETWORK) :]
                for g in self.choices
                if g.startswith(_EVALUATION_NETWORK)
            )
        choice = self.choices.get(group, ())
        choices = (choice,) if isinstance(choice, str) else choice
        return tuple(name for name in choices if name != NOTHING)

    @property
    def overrides(self) -> list[str]:
        """The settings of the first command for a single run."""
        return overrides_of(next(c for c in self.commands if " -m " not in c))


def read_experiments(folder: Path, extra: str | None = None) -> dict[str, Experiment]:
    """All experiments by name, sorted.

    Args:
        folder: the configuration folder.
        extra: a further folder; its experiments replace those of the same name.

    Raises:
        ValueError: a file is not valid YAML, or builds on a file that does not exist.
    """
    folders = [Path(extra), folder] if extra else [folder]
    experiments: dict[str, Experiment] = {}
    for source in reversed(folders):
        for file in sorted((source / "experiment").rglob("*.yaml")):
            name = str(file.relative_to(source / "experiment").with_suffix(""))
            experiments[name] = _read(name, file, folders, extra if source != folder else None)
    return dict(sorted(experiments.items()))


def overrides_of(command: str) -> list[str]:
    """The settings of a command, with "x" for each placeholder such as <folder>.

    >>> overrides_of("python run.py -m data.source.root=<folder> 'seed=1,2'")
    ['data.source.root=x', 'seed=1,2']
    """
    return [word for word in shlex.split(_PLACEHOLDER.sub("x", command)) if "=" in word]


def scale_remarks(experiment: Experiment, folder: Path) -> list[str]:
    """The comments of the files of ``scale=small`` for this experiment and its parts."""
    groups = ("data", "recipe", "dataset_construction", "fine_tuning")
    names = [f"{group}/{name}" for group in groups for name in experiment.choices_of(group)]
    names.append(f"experiment/{experiment.name}")
    files = [folder / "scale/small" / f"{name}.yaml" for name in names]
    heads = (head(file.read_text(encoding="utf-8")) for file in files if file.is_file())
    return [" ".join(note.text for note in notes[""]) for notes in heads if notes[""]]


def head(text: str) -> dict[str, list[Note]]:
    """The notes in a file's first comment, by part; those before the first part under "".

    >>> head("# A: b.\\n# So:\\n#   run -m \\\\\\n#     x=1\\n# Stated: c\\n# d.\\n")["Stated"]
    [Note(text='c d.', commands=())]
    """
    notes: dict[str, list[Note]] = {"": []}
    part, words, commands = "", list[str](), list[str]()

    def end() -> None:
        if words or commands:
            notes.setdefault(part, []).append(Note(" ".join(words), tuple(commands)))
        words.clear()
        commands.clear()

    for line in comment(text):
        if line.startswith("   "):
            _add_command(commands, line.strip())
            continue
        match = _PART.fullmatch(line.strip())
        if match or commands:
            end()
        if match:
            part, line = match[1], match[2]
        words.extend(line.split())
    end()
    return notes


def comment(text: str) -> Iterator[str]:
    """The lines of a file's first comment, without Hydra's ``# @package``."""
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
    sections = head(file.read_text(encoding="utf-8"))
    summary, remarks = _first_sentence(sections.pop(""))
    return Experiment(
        name=name,
        file=file,
        summary=summary,
        remarks=remarks,
        parts={part: tuple(notes) for part, notes in sections.items()},
        choices={**_defaults(folders[-1] / "run.yaml", folders), **_defaults(file, folders)},
        extra=extra,
    )


def _first_sentence(notes: Sequence[Note]) -> tuple[str, tuple[Note, ...]]:
    if not notes or not (sentence := _SENTENCE.match(notes[0].text)):
        return "", tuple(notes)
    rest = Note(notes[0].text[sentence.end() :], notes[0].commands)
    return sentence[1], ((rest,) if rest.text or rest.commands else ()) + tuple(notes[1:])


def _defaults(file: Path, folders: Sequence[Path], depth: int = 0) -> dict[str, Any]:
    """The choices in a file's defaults list, over those of the file that it builds on."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from error
    choices: dict[str, Any] = {}
    for entry in content.get("defaults", ()) if isinstance(content, dict) else ():
        for key, choice in ({str(entry): None} if isinstance(entry, str) else entry).items():
            group = key.split()[-1].lstrip("/")
            if choice is None and group != "_self_" and depth < 8:
                choices |= _defaults(_base(group, file, folders), folders, depth + 1)
            elif choice is not None:
                choices[group] = tuple(choice) if isinstance(choice, list) else str(choice)
    return choices


def _base(name: str, file: Path, folders: Sequence[Path]) -> Path:
    """The file of the experiment that another builds on."""
    path = name.removeprefix("experiment/").partition("@")[0]
    for folder in folders:
        if (base := folder / "experiment" / f"{path}.yaml").is_file():
            return base
    raise ValueError(f"{file} builds on {name}, which does not exist: correct its defaults")
