"""The page docs/experiments.md, from the files of the experiments."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from cwx.cli.experiments import PARTS, Experiment, Note, comment, scale_remarks

# In the order in which a study runs.
GROUPS = (
    "data", "network", "evaluation_networks", "recipe", "corruption", "dataset_construction",
    "adversary", "fine_tuning", "method", "purification", "evaluation",
)  # fmt: skip
RENEW = "python run.py experiments --markdown > docs/experiments.md"


def page(experiments: Sequence[Experiment], folder: Path) -> str:
    """The page, without a final line feed.

    Args:
        folder: the configuration folder, for the comments of scale=small.
    """
    lines = [
        "# Experiments",
        "",
        "Generated from the files in `conf/experiment` by",
        "",
        f"    {RENEW}",
        "",
        "`python run.py experiments <name>` shows one of them, and every setting that",
        "`scale=small` changes. *Stated* settings are in the paper; *chosen* ones are not.",
        "",
        *_index(experiments),
        *_scale((folder / "scale/small.yaml").read_text(encoding="utf-8")),
        *(line for experiment in experiments for line in _section(experiment, folder)),
    ]
    return "\n".join(lines).rstrip()


def _index(experiments: Sequence[Experiment]) -> Iterator[str]:
    yield "| experiment | summary | network | methods | evaluations |"
    yield "|---|---|---|---|---|"
    for _, group in groupby(experiments, key=lambda experiment: experiment.name.partition("/")[0]):
        for experiment in group:
            cells = [f"[{experiment.name}](#{_anchor(experiment.name)})", experiment.summary]
            cells += [
                ", ".join(experiment.choices_of(g)) for g in ("network", "method", "evaluation")
            ]
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _scale(text: str) -> Iterator[str]:
    yield from ("", "## scale=small", "")
    yield from (f"    {line.removeprefix(' ')}".rstrip() for line in comment(text))
    yield ""


def _section(experiment: Experiment, folder: Path) -> Iterator[str]:
    yield from (
        f"## {experiment.name}",
        "",
        experiment.summary or "Its file has no summary.",
        "",
    )
    for index, note in enumerate(experiment.parts.get("Needs", ())):
        yield from _note(note if index else replace(note, text=f"Needs {note.text}"))
    if experiment.basic_command:
        yield from (f"    {experiment.basic_command}", "")
    for note in experiment.remarks:
        yield from _note(note)
    for label, text in _facts(experiment, folder).items():
        if text:
            yield f"- *{label}*: {text}"
    yield ""


def _note(note: Note) -> Iterator[str]:
    yield from (note.text, "")
    if note.commands:
        yield from (*(f"    {command}" for command in note.commands), "")


def _facts(experiment: Experiment, folder: Path) -> Mapping[str, str]:
    return {
        **{group: ", ".join(experiment.choices_of(group)) for group in GROUPS},
        **{part.lower(): experiment.part(part) for part in PARTS if part != "Needs"},
        "scale=small": " ".join(scale_remarks(experiment, folder)),
    }


def _anchor(name: str) -> str:
    """GitHub's anchor of a heading."""
    return "".join(c for c in name.lower() if c.isalnum() or c in "-_")
