"""The main numbers of a run at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from cwx.report.metric_groups import Entry, Family, families
from cwx.report.run import Run

# Rows and columns on one card: others are in the tables.
MOST = ACROSS = 6
# Columns that fit on a card of the usual width.
NARROW = 2


@dataclass(frozen=True)
class Reading:
    """One number on a card.

    Attributes:
        text: as it is read.
        fill: how far its bar reaches, in 0-1; nothing where there is no bar.
        paper: what a paper reports, as it is read; empty where it does not.
        mark: where that lies on the bar.
    """

    text: str
    fill: float | None
    paper: str
    mark: float | None


@dataclass(frozen=True)
class Card:
    """Numbers of a kind.

    Attributes:
        columns: what stands side by side; a single empty one where nothing does.
        rows: a label, and what is read in each column; nothing where nothing was measured.
        more: how many numbers are left to the tables.
    """

    title: str
    meaning: str
    better: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Reading | None]]]
    more: int

    @property
    def kind(self) -> str:
        """How it is laid out."""
        if len(self.columns) > NARROW:
            return "wide"
        return "single" if len(self.rows) == len(self.columns) == 1 else ""


def cards(run: Run) -> list[Card]:
    """What the numbers of a run say, the most telling first."""
    found = [_card(family, run) for family in families(run.metrics, run.titles)]
    # Once is enough for cards of one kind.
    told = [replace(c, meaning="") if c.meaning == b.meaning else c for b, c in pairwise(found)]
    return found[:1] + told


def _card(family: Family, run: Run) -> Card:
    columns, labels = family.columns[:ACROSS], family.labels[:MOST]
    at = {(entry.label, entry.column): entry for entry in family.entries}
    drawn = _are_drawn(family, run)

    def read(label: str, column: str) -> Reading | None:
        entry = at.get((label, column))
        return None if entry is None else _reading(family, entry, run, drawn=drawn)

    rows = [(label, [read(label, column) for column in columns]) for label in labels]
    shown = sum(reading is not None for _, readings in rows for reading in readings)
    more = len(family.entries) - shown
    return Card(family.title, family.meaning, family.better, columns, rows, more)


def _are_drawn(family: Family, run: Run) -> bool:
    """Whether bars can show the numbers: all of them, or none, for bars are compared."""
    return family.fraction or all(0 <= run.metrics[entry.name] <= 1 for entry in family.entries)


def _reading(family: Family, entry: Entry, run: Run, *, drawn: bool) -> Reading:
    value, paper = run.metrics[entry.name], family.paper(entry.name, run.paper)
    return Reading(
        text=said(value, fraction=family.fraction),
        fill=_within(value) if drawn else None,
        paper="" if paper is None else said(paper, fraction=family.fraction),
        mark=None if paper is None else _within(paper),
    )


def said(value: float, *, fraction: bool) -> str:
    """A share in percent, any other number with two decimals or three digits."""
    if fraction:
        return f"{100 * value:.3g} %" if abs(value) < 1 else f"{100 * value:.0f} %"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"


def _within(value: float) -> float:
    return min(max(value, 0.0), 1.0)
