"""The main numbers of a run at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from cwx.report.families import Entry, Family, families
from cwx.report.runs import Run

# On one card: others are in the tables.
MOST = 6


@dataclass(frozen=True)
class Reading:
    """One number on a card.

    Attributes:
        text: as it is read.
        fill: how far its bar reaches, in 0-1; nothing where there is no bar.
        paper: what a paper reports, as it is read; empty where it does not.
        mark: where that lies on the bar.
    """

    label: str
    text: str
    fill: float | None
    paper: str
    mark: float | None


@dataclass(frozen=True)
class Card:
    title: str
    meaning: str
    better: str
    readings: Sequence[Reading]
    more: int


def cards(run: Run) -> list[Card]:
    """What the numbers of a run say, the most telling first."""
    found = [_card(family, run) for family in families(run.numbers, run.titles)]
    # Once is enough for cards of one kind.
    told = [replace(c, meaning="") if c.meaning == b.meaning else c for b, c in pairwise(found)]
    return found[:1] + told


def _card(family: Family, run: Run) -> Card:
    readings = [_reading(family, entry, run) for entry in family.entries[:MOST]]
    more = len(family.entries) - len(readings)
    return Card(family.title, family.meaning, family.better, readings, more)


def _reading(family: Family, entry: Entry, run: Run) -> Reading:
    value, name = run.numbers[entry.name], entry.name
    paper = run.paper.get(name, run.paper.get(family.beside(name)))
    return Reading(
        label=entry.label,
        text=said(value, share=family.share),
        fill=_within(value),
        paper="" if paper is None else said(paper, share=family.share),
        mark=None if paper is None else _within(paper),
    )


def said(value: float, *, share: bool) -> str:
    """A share in percent, any other number with two decimals or three digits."""
    if share:
        return f"{100 * value:.3g} %" if abs(value) < 1 else f"{100 * value:.0f} %"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"


def _within(value: float) -> float:
    return min(max(value, 0.0), 1.0)
