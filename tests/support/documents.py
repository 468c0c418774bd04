"""The documents of this repository: their links, commands and settings."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from support.paths import ROOT

# What a reader fills in, and what stands for it here.
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
_ENTRY = re.compile(r"^(?:uv run |python )run\.py\b")
# In tables and sentences, the entry goes without saying.
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
        """What stands in backticks within lines."""
        return _SPAN.findall(_FENCE.sub("", self.text))

    @property
    def links(self) -> list[str]:
        """Targets of links and images that are not addresses."""
        prose = _SPAN.sub("", _FENCE.sub("", self.text))
        return [to for to in _LINK.findall(prose) if not re.match(r"\w+:", to)]

    @property
    def headings(self) -> set[str]:
        """As GitHub names them in links."""
        titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", self.text), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}

    @property
    def commands(self) -> Iterator[list[str]]:
        """The arguments of each command that runs a study or looks at one."""
        lines = [line for block in self._blocks for line in _joined(block)]
        for line in [*lines, *self.spans]:
            if _ENTRY.match(line):
                yield _filled(shlex.split(_ENTRY.sub("", line), comments=True))
            elif _ABBREVIATED.match(line):
                yield _filled(shlex.split(line))

    @property
    def values(self) -> Iterator[tuple[str, str, object]]:
        """An experiment, a setting and the value that a table states of it there."""
        for table in re.findall(r"(?:^\|.*\n)+", self.text, re.MULTILINE):
            head, _, *rows = [_cells(row) for row in table.splitlines()]
            stated = {i: m[1] for i, cell in enumerate(head) if (m := _VALUES.match(cell))}
            for row in rows if "setting" in head else []:
                setting = row[head.index("setting")].strip("`")
                for column, experiment in stated.items():
                    yield experiment, setting, yaml.safe_load(row[column].strip("`"))


def documents() -> list[Document]:
    """All that are kept in the repository."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
    return [Document(file) for file in sorted(files)]


def _joined(block: str) -> list[str]:
    """Lines, with those that end in a backslash continued."""
    return [line.strip() for line in re.sub(r"\\\n\s*", " ", block).splitlines()]


def _filled(arguments: list[str]) -> list[str]:
    for place, value in PLACEHOLDERS.items():
        arguments = [argument.replace(place, value) for argument in arguments]
    return arguments


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]
