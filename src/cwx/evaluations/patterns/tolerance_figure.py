"""The figure of the success of patterns that are applied inexactly."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure

from cwx.evaluations.outcome import Row
from cwx.functional.spread import population_std

_TITLES = {
    "shift": "shift of the pattern, pixels",
    "noise": "noise, std of 255",
    "jpeg": "JPEG quality",
}


def tolerance_chart(rows: Sequence[Row]) -> Figure:
    """The mean success by strength, a panel for each distortion, with and without the pattern.

    Args:
        rows: of the table ``pattern_tolerance``, without empty cells.
    """
    kinds = [kind for kind in _TITLES if any(row["distortion"] == kind for row in rows)]
    exact = [row for row in rows if row["distortion"] == "none"]
    figure = Figure(figsize=(2.9 * max(1, len(kinds)), 3), dpi=120, layout="constrained")
    panels = figure.subplots(1, max(1, len(kinds)), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds or [""], strict=True):
        of_kind = [row for row in rows if row["distortion"] == kind]
        strengths = list(dict.fromkeys(row["strength"] for row in of_kind))
        groups = [exact, *([r for r in of_kind if r["strength"] == s] for s in strengths)]
        positions = range(len(groups))
        for column, label, style in (("success", "pattern", "o-"), ("without", "none", "s--")):
            values = [[100 * float(row[column]) for row in group] for group in groups]
            means, spreads = [*map(fmean, values)], [*map(population_std, values)]
            axes.errorbar(positions, means, yerr=spreads, fmt=style, capsize=2, label=label)
        axes.set_xticks(positions, ["exact", *(f"{float(s):g}" for s in strengths)])
        axes.set_xlabel(_TITLES.get(kind, ""))
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, 105)
    panels[0].set_ylabel("images of other classes\nsent to the class, %")
    panels[0].legend(frameon=False, fontsize=8)
    return figure
