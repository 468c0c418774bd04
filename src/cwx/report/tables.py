"""Tables as a page shows them: text, sort value and paper value of each cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwx.report.file_readers import cut
from cwx.storage.csv_files import CsvTable, Rows

# Titles by file name; other tables go by their file name.
TITLES = {
    "accuracy": "Accuracy, clean and under attack",
    "adversarial_detection": "Adversarial detection",
    "adversarial_detection_roc": "Adversarial detection: ROC curves",
    "adversarial_set": "Accuracy and attack success on the adversarial set",
    "attack_success": "Backdoor: clean accuracy and attack success rate",
    "attention": "Grad-CAM attention on patterns",
    "classes": "Classes",
    "contributions": "Contributions of units to logits",
    "contributions_areas": "Areas under deletion and insertion curves",
    "contributions_auc": "Adversarial against real images, by score",
    "contributions_curves": "Deletion and insertion curves",
    "contributions_flips": "Units until the prediction flips",
    "corruption": "Corruption of the training images",
    "cure": "Before and after the removal of the trigger",
    "discriminative": "Accuracy on the explanations",
    "diversity": "Diversity within each class",
    "fidelity": "Fidelity by trajectory segment",
    "fidelity_epochs": "Fidelity by start epoch",
    "from_scratch": "New networks trained on the images alone, by learning rate",
    "neuron_pairs": "Pairs of neurons for volunteers",
    "neuron_pairs_neurons": "Neurons in these pairs, with LC and simple statistics",
    "neurons_curve": "CS₁ and CS₂ against LC",
    "neurons_classes": "The closest classes, by their correlation in LC",
    "neurons_layers": "LC and CS by layer",
    "neurons_top": "Neurons of highest LC",
    "pattern_cascade": "Patterns on re-drawn weights, by layers and class",
    "pattern_controls": "Patterns and their controls by class",
    "pattern_tolerance": "Patterns that are applied inexactly, by class",
    "poison_detection": "Poison detection",
    "poison_detection_classes": "Poison detection: separation by class",
    "poisoned_groups": "Groups among the training images of each class",
    "predictive_power": "Predictive power by class",
    "predictive_power_canvases": "Predictive power of each canvas",
    "predictive_power_transfer": "Predictive power on other networks",
    "representations": "Representation distances of adversarial images",
    "representations_histogram": "Representation distances: histograms",
    "revealed_trigger": "Revealed trigger",
    "traces": "Evidence for single predictions",
    "verdict": "Verdict",
    "verdict_classes": "Verdict: statistics by class, and those of the bank",
    "verdict_rates": "Verdict: rates measured on networks of known history",
    "verdict_statistics": "Verdict: p by statistic",
}
# Columns of names, also where these look like numbers.
_TEXT_COLUMNS = ("class", "synset", "source", "network", "name")
# A table of more rows is folded.
_OPEN_ROWS = 30
# Rows of the table of all metrics, and characters of a cell.
MAX_ROWS, MAX_TEXT = 5000, 500


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        sort: the number to sort by, if it is a number.
        fraction: the length of the bar behind it in 0-1, if it has one.
        paper: the paper's value.
        href: the link.
        state: the state of a run, if the cell shows one.
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
    """Rows under columns; `open` if it is not folded at first."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    open: bool = True


def short(value: Any) -> str:
    """A number with four digits; integers and other values as they are."""
    try:
        if str(value).isdecimal():
            return str(value)
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return "" if value is None else str(value)


def table_of_rows(stem: str, content: CsvTable) -> Table:
    """The table of a CSV file.

    Args:
        stem: the file's name without its extension.
        content: at least one row.
    """
    rows = content.rows
    is_per_network = stem.endswith("_networks")
    base = stem.removesuffix("_networks")
    title = TITLES.get(base, base.replace("_", " ").capitalize())
    # Empty columns, such as deviations over a single network, are left out.
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    numeric = {name: _is_numeric(name, rows) for name in names}
    fractions = {name for name in names if numeric[name] and _is_fraction(name, rows)}
    return Table(
        title=title + (", per network" if is_per_network else ""),
        columns=[Column(cut(name.replace("_", " "), MAX_TEXT), numeric[name]) for name in names],
        rows=[
            [_cell(row[name], numeric=numeric[name], fraction=name in fractions) for name in names]
            for row in rows
        ],
        note=f"{content.left_out} See tables/{stem}.csv." if content.left_out else "",
        open=not is_per_network and stem != "classes" and len(rows) <= _OPEN_ROWS,
    )


def metrics_table(metrics: Mapping[str, float], paper: Mapping[str, float]) -> Table:
    """All metrics by flat name, with the paper's values if there are any."""
    columns = [Column("metric"), Column("measured", True)]
    if paper:
        columns.append(Column("paper", True))
    rows = []
    names = [*metrics, *(n for n in paper if n not in metrics)]
    for name in names[:MAX_ROWS]:
        row = [Cell(cut(name, MAX_TEXT)), number_cell(metrics.get(name))]
        rows.append([*row, number_cell(paper.get(name))] if paper else row)
    more = len(names) - len(rows)
    note = f"{more:,} more metrics are in metrics.json." if more else ""
    return Table("All metrics", columns, rows, note=note, open=False)


def number_cell(
    value: float | None, paper: float | None = None, *, fraction: bool = False, digits: int = 4
) -> Cell:
    """A measured value, empty if there is none, and the paper's value.

    Args:
        fraction: whether a bar is drawn behind it.
    """
    paper_text = "" if paper is None else short(paper)
    if value is None:
        return Cell("", paper=paper_text)
    bar = min(max(value, 0.0), 1.0) if fraction else None
    return Cell(f"{value:.{digits}g}", sort=value, fraction=bar, paper=paper_text)


def ordered_tables(tables: Mapping[str, CsvTable]) -> list[Table]:
    """Tables in reading order: those per network and the classes come last."""
    stems = sorted(tables, key=lambda stem: (stem == "classes", stem.endswith("_networks")))
    return [table_of_rows(stem, tables[stem]) for stem in stems]


def _is_numeric(name: str, rows: Rows) -> bool:
    if name.endswith(_TEXT_COLUMNS):
        return False
    values = [row[name] for row in rows if row[name]]
    return bool(values) and all(_float(value) is not None for value in values)


def _is_fraction(name: str, rows: Rows) -> bool:
    """Whether the column gets bars: fractions do, counts that happen to be 0 or 1 do not."""
    texts = [row[name] for row in rows if row[name]]
    in_range = all(0 <= float(text) <= 1 for text in texts)
    are_counts = all(text.isdecimal() for text in texts)
    return in_range and not are_counts and not name.endswith(("_std", "_se"))


def _cell(text: str, *, numeric: bool, fraction: bool) -> Cell:
    value = _float(text) if numeric else None
    if value is None:
        return Cell(cut(text, MAX_TEXT))
    return Cell(short(text), sort=value, fraction=value if fraction else None)


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
