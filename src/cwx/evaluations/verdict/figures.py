"""The classes of a network over those of the bank, a row per statistic."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.functional.bank_comparison import BankComparison

# Classes far below the median, which no trigger reaches, are not of interest.
_LOWEST = -6.0


def statistics_figure(
    names: Sequence[str],
    excess: Tensor,
    comparison: BankComparison | None,
    classes: Sequence[str],
) -> Figure:
    """The excess of every class, and the band of the bank's networks.

    Args:
        names: of the statistics, S.
        excess: of the network ``[S, K]``.
        comparison: with the bank; ``None`` draws no band.
        classes: names, K.
    """
    figure = Figure(figsize=(6.4, 1.1 + 0.55 * len(names)), dpi=120, layout="constrained")
    axes = figure.subplots()
    rows = range(len(names))
    for row in rows:
        values = excess[row]
        if comparison is not None:
            bank = comparison.bank_excess[:, row].flatten()
            bank = bank[~bank.isnan()]
            largest = comparison.bank_excess[:, row].nan_to_num(-torch.inf).amax(1)
            low, high = bank.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
            axes.barh(row, high - low, left=low, height=0.5, color="#d5e3f0", zorder=1)
            axes.plot(
                largest.tolist(), [row] * len(largest), "|", color="#7f9fbf", markersize=9, zorder=2
            )
        axes.plot(
            values.tolist(), [row] * len(values), "o", color="#333333", markersize=4, zorder=3
        )
        label = int(values.nan_to_num(-torch.inf).argmax())
        axes.annotate(
            classes[label], (float(values[label]), row), xytext=(0, 7), ha="center",
            textcoords="offset points", fontsize=7, color="#b03020", parse_math=False,
        )  # fmt: skip
    axes.set_xlim(left=max(axes.get_xlim()[0], _LOWEST))
    axes.set_yticks(list(rows), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    unit = (
        "pooled deviations above the median of the class"
        if comparison
        else "deviations above the median class"
    )
    axes.set_xlabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
