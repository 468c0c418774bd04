"""Links, commands and settings of the documents of this repository."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from support.paths import ROOT

# Placeholders of the documents, with a value for the tests.
PLACEHOLDERS = {
    "<folder>": "somewhere",
    "<file>": "somewhere.txt",
    "<run>": "runs/somewhere",
    "<time>": "2026-01-01_00-00-00",
    "<id>": "0123456789abcdef0123",
    "<name>": "cifar10/cwx",
}

_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^(?: {4}|\t).*\n?)+", re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_COMMAND = re.compile(r"^(?:uv run |python )run\.py\b")
# Tables and sentences omit `python run.py`.
_ABBREVIATED = re.compile(r"^(?:-m )?experiment=")
_VALUES = re.compile(r"^value in `([^`]+)`$")


@dataclass(frozen=True)
class Document:
    """A markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def _blocks(self) -> list[str]:
        without = _FENCE.sub("", self.text)
        return _FENCE.findall(self.text) + _INDENTED.findall(without)

    @cached_property
    def spans(self) -> list[str]:
        """Texts in single backticks."""
        return _SPAN.findall(_FENCE.sub("", self.text))

    @property
    def links(self) -> list[str]:
        """Targets of links and images within the repository."""
        prose = _SPAN.sub("", _FENCE.sub("", self.text))
        return [target for target in _LINK.findall(prose) if not re.match(r"\w+:", target)]

    @property
    def headings(self) -> set[str]:
        """Anchors of the headings, as on GitHub."""
        titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", self.text), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}

    @property
    def commands(self) -> Iterator[list[str]]:
        """The arguments of each command with `run.py`."""
        lines = [line for block in self._blocks for line in _joined_lines(block)]
        for line in [*lines, *self.spans]:
            if _COMMAND.match(line):
                yield _fill(shlex.split(_COMMAND.sub("", line), comments=True))
            elif _ABBREVIATED.match(line):
                yield _fill(shlex.split(line))

    @property
    def values(self) -> Iterator[tuple[str, str, object]]:
        """Experiment, setting and value, of tables with a column "value in `<experiment>`"."""
        for table in re.findall(r"(?:^\|.*\n)+", self.text, re.MULTILINE):
            head, _, *rows = [_cells(row) for row in table.splitlines()]
            columns = {i: m[1] for i, cell in enumerate(head) if (m := _VALUES.match(cell))}
            for row in rows if "setting" in head else []:
                setting = row[head.index("setting")].strip("`")
                for column, experiment in columns.items():
                    yield experiment, setting, yaml.safe_load(row[column].strip("`"))


def documents() -> list[Document]:
    """All Markdown files of the repository."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
    return [Document(file) for file in sorted(files)]


def _joined_lines(block: str) -> list[str]:
    """Lines of a block; a backslash at the end joins a line with the next."""
    return [line.strip() for line in re.sub(r"\\\n\s*", " ", block).splitlines()]


def _fill(arguments: list[str]) -> list[str]:
    for placeholder, value in PLACEHOLDERS.items():
        arguments = [argument.replace(placeholder, value) for argument in arguments]
    return arguments


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]
