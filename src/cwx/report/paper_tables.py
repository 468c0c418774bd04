"""Measured values beside a paper's, in tables laid out as in papers."""

from collections.abc import Mapping, Sequence

from cwx.report.tables import Cell, Column, Table, number_cell
from cwx.storage.metric_names import metric_parts, part_label

# With fewer columns than this, a list is easier to read.
MIN_COLUMNS = 3
# By name prefix.
TITLES = {
    "predictive_power/whole": "Predictive power on all test images",
    "predictive_power/power": "Predictive power",
    "predictive_power/canvases": "Predictive power of the canvases of a class",
}
Parts = tuple[str, ...]


def paper_tables(metrics: Mapping[str, float], paper: Mapping[str, float]) -> list[Table]:
    """A two-way table for names that differ in exactly two parts; one list of all other names."""
    by_shape: dict[tuple[str, int], list[Parts]] = {}
    for name in paper:
        parts = metric_parts(name)
        by_shape.setdefault((_prefix(parts), len(parts)), []).append(parts)
    tables, tabulated = [], set[str]()
    for (prefix, _), names in by_shape.items():
        two_way = _two_way_table(prefix, names, metrics, paper)
        if two_way is not None:
            tables.append(two_way[0])
            tabulated |= two_way[1]
    rest = [name for name in paper if name not in tabulated]
    return ([_list_table(rest, metrics, paper)] if rest else []) + tables


def _prefix(parts: Parts) -> str:
    first_two = "/".join(parts[:2])
    return first_two if first_two in TITLES else parts[0]


def _list_table(
    names: Sequence[str], metrics: Mapping[str, float], paper: Mapping[str, float]
) -> Table:
    columns = [Column("metric"), *(Column(n, True) for n in ("measured", "paper", "difference"))]
    rows = []
    for name in names:
        measured = metrics.get(name)
        difference = None if measured is None else measured - paper[name]
        signed = Cell("" if difference is None else f"{difference:+.2g}", sort=difference)
        rows.append([Cell(name), number_cell(measured), number_cell(paper[name]), signed])
    return Table("Measured and reported", columns, rows)


def _two_way_table(
    prefix: str,
    names: Sequence[Parts],
    metrics: Mapping[str, float],
    paper: Mapping[str, float],
) -> tuple[Table, set[str]] | None:
    """A row per value of one part and a column per value of another, if only these two vary.

    Names without the part of the rows are the row ``overall``.

    Returns:
        The table and all names in it.
    """
    values = [list(dict.fromkeys(column)) for column in zip(*names, strict=True)]
    varying = [index for index, different in enumerate(values) if len(different) > 1]
    if len(varying) != 2:
        return None
    # There are more classes than sizes or canvases: classes are the rows.
    across, down = sorted(varying, key=lambda index: len(values[index]))
    cells = len(values[across]) * len(values[down])
    if len(values[across]) < MIN_COLUMNS or len(names) * 2 < cells:
        return None

    def name_of(row: str | None, column: str) -> str:
        parts: list[str | None] = [different[0] for different in values]
        parts[down], parts[across] = row, column
        return "/".join(part for part in parts if part is not None)

    def cell(row: str | None, column: str) -> Cell:
        name = name_of(row, column)
        return number_cell(metrics.get(name), paper.get(name), fraction=row != "std", digits=3)

    # The overall value comes first, the standard deviation last.
    rows: list[str | None] = sorted(values[down], key=lambda row: row == "std")
    if any(name_of(None, column) in paper for column in values[across]):
        rows = [None, *rows]
    constant = [different[0] for index, different in enumerate(values) if index not in varying]
    rest = constant[prefix.count("/") + 1 :]
    title = TITLES.get(prefix, prefix)
    table = Table(
        f"{title}: {', '.join(map(part_label, rest))}" if rest else title,
        [Column(""), *(Column(part_label(column), True) for column in values[across])],
        [
            [
                Cell(part_label(row) if row else "overall"),
                *(cell(row, column) for column in values[across]),
            ]
            for row in rows
        ],
        note="Large: measured. Small: the paper's value.",
    )
    return table, {name_of(row, column) for row in rows for column in values[across]}
