"""What is measured beside what a paper reports, laid out as papers lay out their tables."""

from collections.abc import Mapping, Sequence

from cwx.report.tables import Cell, Column, Table, number

# Fewer rows or columns than this are read more easily as a list.
LEAST = 3
TITLES = {
    "power_whole": "Predictive power on all test images",
    "power": "Predictive power",
    "canvases": "Predictive power of the canvases of a class",
}


def beside_paper(metrics: Mapping[str, float], paper: Mapping[str, float]) -> list[Table]:
    """Names that differ in two of their parts become a table of these, the others a list."""
    families: dict[tuple[str, int], list[tuple[str, ...]]] = {}
    for name in paper:
        parts = tuple(name.split("/"))
        families.setdefault((parts[0], len(parts)), []).append(parts)
    tables, told = [], set[str]()
    for family in families.values():
        crossed = _crossed(family, metrics, paper)
        if crossed is not None:
            tables.append(crossed[0])
            told |= crossed[1]
    rest = [name for name in paper if name not in told]
    return ([_list(rest, metrics, paper)] if rest else []) + tables


def _list(names: Sequence[str], metrics: Mapping[str, float], paper: Mapping[str, float]) -> Table:
    columns = [Column("name"), *(Column(n, True) for n in ("measured", "paper", "difference"))]
    rows = []
    for name in names:
        measured = metrics.get(name)
        difference = None if measured is None else measured - paper[name]
        signed = Cell("" if difference is None else f"{difference:+.2g}", sort=difference)
        rows.append([Cell(name), number(measured), number(paper[name]), signed])
    return Table("Measured and reported", columns, rows)


def _crossed(
    family: Sequence[tuple[str, ...]], metrics: Mapping[str, float], paper: Mapping[str, float]
) -> tuple[Table, set[str]] | None:
    """A row for each of one part, a column for each of the other, if these two alone vary.

    Names without the part that rows differ by have a row of their own. Returned with all names
    that the table tells.
    """
    values = [list(dict.fromkeys(parts)) for parts in zip(*family, strict=True)]
    varying = [place for place, found in enumerate(values) if len(found) > 1]
    if len(varying) != 2:
        return None
    # Classes are more than sizes or canvases: down the page.
    across, down = sorted(varying, key=lambda place: len(values[place]))
    if len(values[across]) < LEAST or len(family) * 2 < len(values[across]) * len(values[down]):
        return None

    def name(row: str | None, column: str) -> str:
        parts: list[str | None] = [found[0] for found in values]
        parts[down], parts[across] = row, column
        return "/".join(part for part in parts if part is not None)

    def cell(row: str | None, column: str) -> Cell:
        key = name(row, column)
        return number(metrics.get(key), paper.get(key), fraction=row != "std", digits=3)

    # What spreads over the others comes after them, what sums them up before.
    rows: list[str | None] = sorted(values[down], key=lambda row: row == "std")
    if any(name(None, column) in paper for column in values[across]):
        rows = [None, *rows]
    kind, *rest = [found[0] for place, found in enumerate(values) if place not in varying]
    table = Table(
        f"{TITLES.get(kind, kind)}: {', '.join(rest)}" if rest else TITLES.get(kind, kind),
        [Column(""), *(Column(column, True) for column in values[across])],
        [
            [Cell(row or "overall"), *(cell(row, column) for column in values[across])]
            for row in rows
        ],
        note="Large what is measured, small what the paper reports.",
    )
    return table, {name(row, column) for row in rows for column in values[across]}
