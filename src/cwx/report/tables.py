"""Tables as a page shows them: what each cell says, how it sorts, and what a paper has there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cwx.report.file_readers import Rows

# Known tables in words; others go by their file's name.
TITLES = {
    "adversarial": "Real and adversarial images",
    "adversarial_detection": "AdversarialSet images told apart",
    "adversarial_detection_roc": "AdversarialSet images told apart: the curves",
    "attention": "Attention on patterns",
    "backdoor": "Backdoor: accuracy and attack success",
    "classes": "Classes",
    "detection": "Poisoned images found",
    "discriminative": "Who recognises the explanations",
    "diversity": "Likeness of the images of a class",
    "fidelity": "Fidelity, segment by segment",
    "neurons_curve": "CS₁ and CS₂ by LC",
    "neurons_layers": "What neurons respond to, layer by layer",
    "neurons_top": "Neurons of the highest LC",
    "power": "Predictive power by class",
    "power_canvases": "Predictive power of every canvas",
    "representations": "Representations of adversarial images",
    "representations_histogram": "Representations of adversarial images: the histograms",
    "robustness": "Accuracy under attacks",
    "separation": "How far each class is set apart",
    "traces": "What single predictions rest on",
    "transfer": "Predictive power on other networks",
    "trigger": "The trigger that explanations reveal",
}
# Columns that are words even where they look like numbers.
_WORDS = ("class", "synset", "source", "network", "name")


@dataclass(frozen=True)
class Cell:
    """What a cell says.

    Attributes:
        sort: the number to sort by, if it is one.
        fraction: a number in 0-1 to draw behind it.
        paper: what a paper reports there.
        href: where it leads.
        state: of a run, if the cell says that.
    """

    text: str
    sort: float | None = None
    fraction: float | None = None
    paper: str = ""
    href: str = ""
    state: str = ""


@dataclass(frozen=True)
class Column:
    name: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under columns; `open` where it is small or telling enough to be shown at once."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    open: bool = True
    wide: bool = field(default=False)


def short(value: Any) -> str:
    """A number with four digits; a whole one, or anything else, as it is."""
    try:
        if str(value).isdecimal():
            return str(value)
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return "" if value is None else str(value)


def of_rows(stem: str, rows: Rows) -> Table:
    """A CSV file's rows."""
    networks = stem.endswith("_networks")
    base = stem.removesuffix("_networks")
    title = TITLES.get(base, base.replace("_", " ").capitalize())
    # What is empty in all rows, as deviations over one network are, tells nothing.
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    numeric = {name: _is_numeric(name, rows) for name in names}
    fractions = {name for name in names if numeric[name] and _is_share(name, rows)}
    return Table(
        title=title + (", each network" if networks else ""),
        columns=[Column(name.replace("_", " "), numeric[name]) for name in names],
        rows=[
            [_cell(row[name], numeric=numeric[name], fraction=name in fractions) for name in names]
            for row in rows
        ],
        open=not networks and stem != "classes" and len(rows) <= 30,
    )


def of_metrics(metrics: Mapping[str, float], paper: Mapping[str, float]) -> Table:
    """All numbers by flat name, with the paper's where it reports some."""
    columns = [Column("name"), Column("measured", True)]
    if paper:
        columns.append(Column("paper", True))
    rows = []
    for name in [*metrics, *(n for n in paper if n not in metrics)]:
        row = [Cell(name), number(metrics.get(name))]
        rows.append([*row, number(paper.get(name))] if paper else row)
    return Table("All numbers", columns, rows, open=False)


def number(
    value: float | None, paper: float | None = None, *, fraction: bool = False, digits: int = 4
) -> Cell:
    """A measured number, nothing if there is none, and what a paper has for it."""
    beside = "" if paper is None else short(paper)
    if value is None:
        return Cell("", paper=beside)
    drawn = min(max(value, 0.0), 1.0) if fraction else None
    return Cell(f"{value:.{digits}g}", sort=value, fraction=drawn, paper=beside)


def ordered(tables: Mapping[str, Rows]) -> list[Table]:
    """Tables in the order to read them: each network's and the classes' after all others."""
    last = sorted(tables, key=lambda stem: (stem == "classes", stem.endswith("_networks")))
    return [of_rows(stem, tables[stem]) for stem in last]


def _is_numeric(name: str, rows: Rows) -> bool:
    if name.endswith(_WORDS):
        return False
    values = [row[name] for row in rows if row[name]]
    return bool(values) and all(_float(value) is not None for value in values)


def _is_share(name: str, rows: Rows) -> bool:
    """Whether the column is drawn: shares, and not counts that happen to be 0 or 1."""
    texts = [row[name] for row in rows if row[name]]
    values = [float(text) for text in texts]
    between = all(0 <= value <= 1 for value in values)
    whole = all(text.isdecimal() for text in texts)
    return between and not whole and not name.endswith("_std")


def _cell(text: str, *, numeric: bool, fraction: bool) -> Cell:
    value = _float(text) if numeric else None
    if value is None:
        return Cell(text)
    return Cell(short(text), sort=value, fraction=value if fraction else None)


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
