"""The figure of the controls of patterns."""

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from matplotlib.figure import Figure

from cwx.evaluations.outcome import Row

# Columns of the table, and last parts of the metrics.
PATTERN, RANDOM, OTHER = "pattern", "random_masks", "other_canvas"
NONE, REDRAWN, SHUFFLED, GAIN = "no_pattern", "redrawn", "shuffled", "gain"
EQUAL_CHOICE = "equal_choice"
_LABELS = {
    PATTERN: "pattern",
    EQUAL_CHOICE: "pattern, of as many canvases as the searches below",
    RANDOM: "random masks of its size",
    OTHER: "its mask on canvases of other classes",
    SHUFFLED: "pattern searched on canvases of another class",
    REDRAWN: "pattern of re-drawn weights, less no pattern there",
    NONE: "no pattern",
}
_COLOURS = {
    PATTERN: "#3b6fb6",
    EQUAL_CHOICE: "#93b1da",
    RANDOM: "#b8b8b8",
    OTHER: "#7fa88f",
    SHUFFLED: "#9a7bb0",
    NONE: "#e2c08d",
}
# Beyond so many classes the figure shows the means alone.
_MOST_BARS = 20


def chart(rows: Sequence[Row], redrawn: dict[float, float]) -> Figure:
    """Success rates by class at the largest size, beside the controls."""
    size = max(rows, key=lambda row: float(row["size"]))["size"]
    of_size = [row for row in rows if row["size"] == size]
    columns = [
        c for c in _COLOURS if not any(math.isnan(float(row.get(c, math.nan))) for row in of_size)
    ]
    if all(row.get(EQUAL_CHOICE) == row[PATTERN] for row in of_size):
        columns.remove(EQUAL_CHOICE)
    if len(of_size) > _MOST_BARS:
        of_size = [
            {"class": "mean over classes"}
            | {c: fmean(float(row[c]) for row in of_size) for c in columns}
        ]
    figure = Figure(figsize=(6.4, 0.8 + 0.34 * len(of_size) + 0.7), dpi=120, layout="constrained")
    axes = figure.subplots()
    heights = torch.arange(len(of_size), dtype=torch.float64).numpy()
    thickness = 0.8 / len(columns)
    for index, column in enumerate(columns):
        values = [100 * float(row[column]) for row in of_size]
        offset = (index - (len(columns) - 1) / 2) * thickness
        label, colour = _LABELS[column], _COLOURS[column]
        axes.barh(heights + offset, values, 0.93 * thickness, label=label, color=colour)
    if float(size) in redrawn:
        level = 100 * redrawn[float(size)]
        axes.axvline(level, color="#8b2f2f", linestyle="--", linewidth=1, label=_LABELS[REDRAWN])
    axes.set_yticks(heights, [str(row["class"]).replace("$", r"\$") for row in of_size])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(
        f"images of other classes sent to the class, % ({float(size):.0%} of the image)"
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper left", ncols=2, fontsize=8)
    return figure
