"""What numbers say in words: numbers of a kind belong to one family, on one card or chart."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from cwx.report.metric_catalogue import KINDS, SOURCES, Kind, column, network


@dataclass(frozen=True)
class Entry:
    """One number of a family: its flat name, and what sets it apart from its siblings.

    Attributes:
        column: what it stands under, where siblings of one label stand side by side.
    """

    name: str
    label: str
    column: str = ""

    @property
    def words(self) -> str:
        return ", ".join(part for part in (self.label, self.column) if part)


@dataclass(frozen=True)
class Family:
    """Numbers of one kind.

    Attributes:
        fraction: whether they are shares in 0-1.
        better: ``higher``, ``lower``, or nothing where neither is better.
        entries: in the order that they are shown.
        beside: where the paper's figure of a name stands, if not under the name itself.
    """

    title: str
    meaning: str
    fraction: bool
    better: str
    entries: tuple[Entry, ...]
    beside: Callable[[str], str] = str

    @property
    def columns(self) -> list[str]:
        """What stands side by side; one that is empty where nothing does."""
        return list(dict.fromkeys(entry.column for entry in self.entries))

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(entry.label for entry in self.entries))

    def paper(self, name: str, paper: Mapping[str, float]) -> float | None:
        """What a paper has for the number so called."""
        return paper.get(name, paper.get(self.beside(name)))

    def of(self, label: str) -> "Family":
        """Those of one label, by their columns."""
        own = (e for e in self.entries if e.label == label)
        entries = tuple(replace(e, label=e.column, column="") for e in own)
        return replace(self, title=f"{self.title}: {label}", entries=entries)

    def under(self, column: str) -> "Family":
        """Those of one column."""
        entries = tuple(replace(e, column="") for e in self.entries if e.column == column)
        return replace(self, title=f"{self.title}: {column}", entries=entries)


def families(metrics: Mapping[str, float], titles: Mapping[str, str]) -> list[Family]:
    """What is known to mean something, the most telling first; the rest is left to tables.

    Args:
        metrics: by flat name.
        titles: of methods, for people.
    """
    return [
        family
        for kind in KINDS
        if not (kind.unless and any(name.startswith(kind.unless) for name in metrics))
        for family in _of_kind(kind, metrics, titles)
    ]


def _of_kind(
    kind: Kind, metrics: Mapping[str, float], titles: Mapping[str, str]
) -> Iterable[Family]:
    words = SOURCES | dict(titles)
    by_title: dict[str, list[Entry]] = {}
    for name, value in metrics.items():
        match = re.fullmatch(kind.pattern, name)
        if match is None or kind.leave_out(value):
            continue
        groups = {key: found or "" for key, found in match.groupdict().items()}
        of, label = groups.get("of", ""), groups.get("label", "")
        title = kind.title.format(of=words.get(of, network(of)))
        said = words.get(label) or (network(label) if kind.label is str else kind.label(label))
        above = groups.get("column")
        if above is not None:
            named = words.get(above) or column(above)
            above = named if kind.column is str else kind.column(above)
        by_title.setdefault(title, []).append(Entry(name, said, above or ""))
    for title, entries in by_title.items():
        yield _family(kind, title, entries)


def _family(kind: Kind, title: str, entries: list[Entry]) -> Family:
    if {entry.column for entry in entries} <= {"top 1"}:
        # Nothing to set it apart from.
        entries = [replace(entry, column="") for entry in entries]
    return Family(title, kind.meaning, kind.fraction, kind.better, tuple(entries), kind.beside)


def union(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """All names that any run measured, in the order of their first appearance."""
    names: dict[str, float] = {}
    for metrics in runs:
        for name, value in metrics.items():
            names.setdefault(name, value)
    return names
