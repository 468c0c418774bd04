"""The index of experiments as a page of the documentation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from cwx.cli.experiments import PARTS, Experiment, Note, comment, scale_remarks

# In the order of a study.
GROUPS = (
    "data", "network", "evaluation_networks", "recipe", "corruption", "dataset_construction", "adversary",
    "fine_tuning", "method", "purification", "evaluation",
)  # fmt: skip
RENEW = "python run.py experiments --markdown > docs/experiments.md"


def page(experiments: Sequence[Experiment], folder: Path) -> str:
    """All of it, without a line feed at its end.

    Args:
        folder: the configuration folder, for what is said there of scale=small.
    """
    lines = [
        "# Experiments",
        "",
        "Made from the files in `conf/experiment` by",
        "",
        f"    {RENEW}",
        "",
        "`python run.py experiments <name>` shows one of them, and every setting that",
        "`scale=small` changes. *Stated* is what the paper says, *chosen* what it leaves open.",
        "",
        *_index(experiments),
        *_scale((folder / "scale/small.yaml").read_text(encoding="utf-8")),
        *(line for one in experiments for line in _section(one, folder)),
    ]
    return "\n".join(lines).rstrip()


def _index(experiments: Sequence[Experiment]) -> Iterator[str]:
    yield "| experiment | what it shows | network | methods | evaluations |"
    yield "|---|---|---|---|---|"
    for _, group in groupby(experiments, key=lambda one: one.name.partition("/")[0]):
        for one in group:
            cells = [f"[{one.name}](#{_anchor(one.name)})", one.shows]
            cells += [", ".join(one.chosen(g)) for g in ("network", "method", "evaluation")]
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _scale(text: str) -> Iterator[str]:
    yield from ("", "## scale=small", "")
    yield from (f"    {line.removeprefix(' ')}".rstrip() for line in comment(text))
    yield ""


def _section(one: Experiment, folder: Path) -> Iterator[str]:
    yield from (f"## {one.name}", "", one.shows or "Its file does not say what it shows.", "")
    for place, note in enumerate(one.parts.get("Needs", ())):
        yield from _note(note if place else replace(note, text=f"Needs {note.text}"))
    if one.plain:
        yield from (f"    {one.plain}", "")
    for note in one.remarks:
        yield from _note(note)
    for what, text in _facts(one, folder).items():
        if text:
            yield f"- *{what}*: {text}"
    yield ""


def _note(note: Note) -> Iterator[str]:
    yield from (note.text, "")
    if note.commands:
        yield from (*(f"    {command}" for command in note.commands), "")


def _facts(one: Experiment, folder: Path) -> Mapping[str, str]:
    return {
        **{group: ", ".join(one.chosen(group)) for group in GROUPS},
        **{part.lower(): one.part(part) for part in PARTS if part != "Needs"},
        "scale=small": " ".join(scale_remarks(one, folder)),
    }


def _anchor(name: str) -> str:
    """As GitHub makes it of a heading."""
    return "".join(c for c in name.lower() if c.isalnum() or c in "-_")
