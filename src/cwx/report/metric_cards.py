"""The main metrics of a run as cards."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from cwx.report.metric_groups import Metric, MetricGroup, group_metrics
from cwx.report.run import RunContents

# At most so many rows and columns on one card: the tables have the rest.
MAX_ROWS = MAX_COLUMNS = 6
# Columns that fit on a card of the usual width.
NARROW = 2


@dataclass(frozen=True)
class CardValue:
    """One value on a card.

    Attributes:
        text: the formatted value.
        bar: the length of its bar in 0-1; ``None`` without a bar.
        paper: the paper's value, formatted; empty if the paper has none.
        paper_mark: the position of the paper's value on the bar in 0-1.
    """

    text: str
    bar: float | None
    paper: str
    paper_mark: float | None


@dataclass(frozen=True)
class Card:
    """One group of metrics.

    Attributes:
        columns: the column heads; a single empty one if the group has no columns.
        rows: a label and a value per column, ``None`` where nothing was measured.
        more: how many values only the tables have.
    """

    title: str
    meaning: str
    better: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[CardValue | None]]]
    more: int

    @property
    def layout(self) -> str:
        """The CSS class: ``wide``, ``single`` or empty."""
        if len(self.columns) > NARROW:
            return "wide"
        return "single" if len(self.rows) == len(self.columns) == 1 else ""


def metric_cards(run: RunContents) -> list[Card]:
    """A card per metric group of the run, in the order of the catalogue."""
    cards = [_card(group, run) for group in group_metrics(run.metrics, run.method_titles)]
    # Consecutive cards with the same meaning state it once.
    later = [
        replace(card, meaning="") if card.meaning == previous.meaning else card
        for previous, card in pairwise(cards)
    ]
    return cards[:1] + later


def _card(group: MetricGroup, run: RunContents) -> Card:
    columns, labels = group.columns[:MAX_COLUMNS], group.labels[:MAX_ROWS]
    by_cell = {(metric.label, metric.column): metric for metric in group.metrics}
    has_bars = _has_bars(group, run)

    def value(label: str, column: str) -> CardValue | None:
        metric = by_cell.get((label, column))
        return None if metric is None else _card_value(group, metric, run, has_bar=has_bars)

    rows = [(label, [value(label, column) for column in columns]) for label in labels]
    count = sum(v is not None for _, values in rows for v in values)
    more = len(group.metrics) - count
    return Card(group.title, group.meaning, group.better, columns, rows, more)


def _has_bars(group: MetricGroup, run: RunContents) -> bool:
    """Whether bars can show the values: of all or of none, since bars are compared."""
    return group.fraction or all(0 <= run.metrics[metric.name] <= 1 for metric in group.metrics)


def _card_value(
    group: MetricGroup, metric: Metric, run: RunContents, *, has_bar: bool
) -> CardValue:
    value, paper = run.metrics[metric.name], group.paper_value(metric.name, run.paper)
    return CardValue(
        text=format_value(value, fraction=group.fraction),
        bar=_clamped(value) if has_bar else None,
        paper="" if paper is None else format_value(paper, fraction=group.fraction),
        paper_mark=None if paper is None else _clamped(paper),
    )


def format_value(value: float, *, fraction: bool) -> str:
    """A fraction in percent, any other number with two decimals or three digits."""
    if fraction:
        return f"{100 * value:.3g} %" if abs(value) < 1 else f"{100 * value:.0f} %"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"


def _clamped(value: float) -> float:
    return min(max(value, 0.0), 1.0)
