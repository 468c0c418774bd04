"""Figures of deletion and insertion curves, and of the contradiction of evidence."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cwx.evaluations.adversarial.adversarial_detection import detection_auroc
from cwx.evaluations.contributions.scores import ByKind, Score
from cwx.evaluations.outcome import Row

_ORDERS = {
    "contribution": ("signed contribution", "C0", "-"),
    "difference": ("prediction difference", "C1", "-"),
    "activation": ("activation", "C2", "-"),
    "random": ("random order", "grey", ":"),
}
_KINDS = {"test": ("test images", "C0"), "adversarial": ("adversarial images", "C3")}
_ROC = {
    "contradiction": ("contradiction", "C3", "-"),
    "permuted": ("… permuted classes", "C3", ":"),
    "gaussian": ("Gaussian", "C0", "-"),
    "confidence": ("1 − probability", "C2", "-"),
}
BINS = 30


def curves_figure(rows: Sequence[Row]) -> Figure:
    """Mean deletion and insertion curves: a row per network, two panels per kind of images.

    Args:
        rows: of the table ``contributions_curves``.
    """
    networks, kinds = ([*dict.fromkeys(str(row[name]) for row in rows)] for name in _HEAD)
    panels = [(kind, curve) for kind in kinds for curve in ("deletion", "insertion")]
    size = (0.6 + 2.2 * len(panels), 0.7 + 2.1 * len(networks))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    grid = figure.subplots(len(networks), len(panels), sharex=True, sharey=True, squeeze=False)
    for network, of_network in zip(networks, grid, strict=True):
        for (kind, curve), axes in zip(panels, of_network, strict=True):
            own = [row for row in rows if row["network"] == network and row["kind"] == kind]
            for order, (label, colour, style) in _ORDERS.items():
                points = [row for row in own if row["order"] == order]
                axes.plot(
                    [float(row["fraction"]) for row in points],
                    [float(row[curve]) for row in points],
                    color=colour,
                    linestyle=style,
                    linewidth=1.2,
                    label=label,
                )
            _plain(axes)
            axes.set_title(f"{network}: {curve}, {kind}", fontsize=8, parse_math=False)
        of_network[0].set_ylabel("mean probability", fontsize=8)
    for axes, (_, curve) in zip(grid[-1], panels, strict=True):
        word = "removed" if curve == "deletion" else "kept"
        axes.set_xlabel(f"fraction of units {word}", fontsize=8)
    grid[0, 0].set_ylim(0, 1)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(),
        loc="outside lower center", ncols=4, frameon=False, fontsize=8,
    )  # fmt: skip
    return figure


_HEAD = ("network", "kind")


def contradiction_figure(by_network: Mapping[str, Sequence[Score]], rows: Sequence[Row]) -> Figure:
    """Histograms of the contradiction, and ROC curves of it, its control and other scores.

    Args:
        by_network: scores of one ablation, or of none.
        rows: of the table ``contributions_auc``, of the same scores.
    """
    figure = Figure(figsize=(7.2, 0.3 + 2.9 * len(by_network)), dpi=120, layout="constrained")
    grid = figure.subplots(len(by_network), 2, squeeze=False)
    for (network, scores), (histogram, roc) in zip(by_network.items(), grid, strict=True):
        by_name = {score.name: score for score in scores}
        _histogram(histogram, by_name["contradiction"].versions[0])
        histogram.set_title(network, fontsize=9, parse_math=False)
        areas = {row["score"]: float(row["auc"]) for row in rows if row["network"] == network}
        for name, (label, colour, style) in _ROC.items():
            if name not in by_name:
                continue
            for number, version in enumerate(by_name[name].versions):
                _, points = detection_auroc(-version["test"], -version["adversarial"])
                roc.plot(
                    [float(point["false_positive_rate"]) for point in points],
                    [float(point["true_positive_rate"]) for point in points],
                    color=colour,
                    linestyle=style,
                    linewidth=1.2 if len(by_name[name].versions) == 1 else 0.6,
                    label=None if number else f"{label}, AUC {areas[name]:.3f}",
                )
        roc.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        roc.set_xlabel("false positive rate (test images)", fontsize=8)
        roc.set_ylabel("true positive rate (adversarial)", fontsize=8)
        roc.legend(frameon=False, fontsize=7)
        _plain(roc)
    return figure


def _histogram(axes: Axes, scores: ByKind) -> None:
    values = torch.cat(list(scores.values()))
    low, high = values.min().item(), values.max().item()
    edges = torch.linspace(low, high + 1e-9, BINS + 1, dtype=torch.float64)
    for kind, of_kind in scores.items():
        label, colour = _KINDS[kind]
        weights = torch.full_like(of_kind, 1 / len(of_kind))
        axes.hist(
            of_kind.tolist(),
            bins=edges.tolist(),
            weights=weights.tolist(),
            color=colour,
            alpha=0.45,
            label=label,
        )
    axes.set_xlabel("contradiction of the evidence", fontsize=8)
    axes.set_ylabel("fraction of images", fontsize=8)
    axes.legend(frameon=False, fontsize=7)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)
