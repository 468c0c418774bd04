"""The predictive power of patterns and perturbations (ISCP, §4 and Appendices B-E; I8, I16-I20)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, pstdev

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.evaluations.outcome import Outcome, Row, Sources, each_network, over_networks
from cwx.evaluations.patterns.probe import Probe, Reached
from cwx.evaluations.patterns.selection import (
    Candidate,
    Contest,
    Entry,
    best,
    by_radius,
    entries,
    of_size,
)
from cwx.explanations.drawing import sheet
from cwx.explanations.patterns import Patterns, Perturbations
from cwx.functional.mask_search import pixels
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class PredictivePower:
    """PW of every source's patterns on the network they explain, and on all other networks.

    Of the canvases of a class the one counts whose pattern, cut to the size, has the lowest loss
    on the images that were searched on (D_n). ``predictive_power/power/<source>/<size>`` is the mean over classes
    on test images outside D, ``predictive_power/whole/…`` on all of them, as the paper's tables have it;
    ``…/std`` is over classes (ddof 0), ``…/<class>`` a class's own. Of universal perturbations it
    is the success rate as it is. A class that the network never recognises has no power, and is
    left out of means. ``predictive_power/canvases/<source>/<size>/<class>/top-<i>`` are the powers of a class's
    canvases on all test images, in the order of preference, and ``…/std`` over them.
    ``predictive_power/transfer/<source>/<size>/<network>`` is the mean power on that
    evaluation network over the mean power on the explained network.

    The tables are ``power`` (a row a class), ``power_canvases`` (a row a canvas) and ``transfer``,
    whose ``printed_rate`` is the ratio as the paper prints it, source over target; the figures
    ``patterns`` and ``power``.

    Args:
        sizes: shares of the image's pixels in 0-1.
        images: at most so many test images, evenly spaced; null for all.

    Raises:
        ValueError: no size is given, or `images` is below 1.
    """

    def __init__(self, *, sizes: Sequence[float], images: int | None) -> None:
        if not sizes:
            raise ValueError(
                "evaluation.predictive_power.sizes is empty: give a share of the image"
            )
        if images is not None and images < 1:
            raise ValueError(
                f"evaluation.predictive_power.images is {images}: give 1 or more, or null for all"
            )
        self.sizes, self.images = list(sizes), images

    def check(self, plan: Plan) -> None:
        for size in self.sizes:
            pixels(size, *plan.data.image_shape[1:])
        if not any(left in (Patterns, Perturbations) for left in plan.leaves.values()):
            raise ValueError(
                "predictive_power needs a method that leaves patterns, such as method=[iscp]: "
                "choose one, or leave predictive_power out of evaluation=[…]"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        contests = [c for name, found in sources.items() for c in self._contests(name, found)]
        test = subject.data.splits.test
        places = test.places(self.images)
        probes: dict[str, Probe] = {}
        judged = []
        for contest in contests:
            if contest.explains not in probes:
                network = subject.explained(contest.explains)
                probes[contest.explains] = Probe(subject, network, test.at(places))
            judged.append(_judge(contest, probes[contest.explains], places, subject))
        transfers = _transfer(subject, judged, places)
        metrics = _metrics(judged) | _transfer_metrics(transfers)
        tables: dict[str, list[Row]] = {
            "power": [row for found in judged for row in found.rows],
            "power_canvases": [row for found in judged for row in found.every],
        }
        if transfers:
            tables["transfer"] = transfers
        return Outcome(metrics=metrics, tables=tables, figures=_figures(judged, subject))

    def _contests(self, name: str, found: object) -> list[Contest]:
        if isinstance(found, Patterns):
            return [of_size(name, found, size) for size in self.sizes]
        return by_radius(name, found) if isinstance(found, Perturbations) else []


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A contest's best of each class, with its row, and the rows of all."""

    contest: Contest
    best: Sequence[Candidate]
    rows: list[Row]
    every: list[Row]


def _judge(contest: Contest, probe: Probe, places: Tensor, subject: Subject) -> Judged:
    searched = contest.searched[places]

    def rows(of: Sequence[Entry]) -> list[Row]:
        return [_row(contest, entry, probe, searched, subject.data.classes) for entry in of]

    entered = entries(contest, probe, searched)
    chosen = best(entered)
    return Judged(
        contest=contest,
        best=[entry.candidate for entry in chosen],
        rows=rows(chosen),
        every=rows(entered),
    )


def _row(
    contest: Contest, entry: Entry, probe: Probe, searched: Tensor, classes: Sequence[str]
) -> Row:
    candidate = entry.candidate
    return {
        "source": contest.source,
        "size": contest.size,
        "class": classes[candidate.label],
        "canvas": candidate.place,
        "tied": candidate.tied,
        "loss": entry.loss,
        **_powers(entry.found, probe, candidate.label, searched, divided=contest.divided),
    }


def _powers(
    found: Reached, probe: Probe, label: int, searched: Tensor, *, divided: bool
) -> dict[str, float]:
    # What was searched on in whole has nothing left outside.
    outside = ~searched if not searched.all() else searched
    held_out = probe.power(found, label, outside)
    whole = probe.power(found, label, torch.ones_like(searched))
    return {
        "power": (held_out.compute() if divided else held_out.success).item(),
        "power_whole": (whole.compute() if divided else whole.success).item(),
        "success": held_out.success.item(),
        "accuracy": held_out.accuracy.item(),
    }


def _transfer(subject: Subject, judged: Sequence[Judged], places: Tensor) -> list[Row]:
    """The power of each class's best pattern on every network, beside that at home."""
    panel = subject.panel()
    if sum(map(len, panel.values())) < 2:
        return []
    images = subject.data.splits.test.at(places)

    def measure(network: nn.Module) -> list[Row]:
        probe = Probe(subject, network, images)
        return [
            {
                "source": row["source"],
                "size": row["size"],
                "class": row["class"],
                "explained": row["power"],
                "power": _powers(
                    probe.others(candidate.attach, candidate.label),
                    probe,
                    candidate.label,
                    one.contest.searched[places],
                    divided=one.contest.divided,
                )["power"],
            }
            for one in judged
            for candidate, row in zip(one.best, one.rows, strict=True)
        ]

    return [
        {
            **row,
            "rate": _ratio(row, "power", "explained"),
            "printed_rate": _ratio(row, "explained", "power"),
        }
        for row in over_networks(each_network(panel, measure), values=("power",))
    ]


def _ratio(row: Row, above: str, below: str) -> float | str:
    ratio = float(row[above]) / float(row[below]) if float(row[below]) else math.nan
    return ratio if math.isfinite(ratio) else ""


def _metrics(judged: Sequence[Judged]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for one in judged:
        for kind, column in (("power", "power"), ("whole", "power_whole")):
            name = f"predictive_power/{kind}/{one.contest.source}/{one.contest.size}"
            metrics |= _mean_and_std(name, one.rows, column)
            metrics |= {f"{name}/{row['class']}": float(row[column]) for row in one.rows}
        for label, canvases in groupby(one.every, key=lambda row: row["class"]):
            name, rows = (
                f"predictive_power/canvases/{one.contest.source}/{one.contest.size}/{label}",
                [*canvases],
            )
            if len(rows) > 1:
                tops = {
                    f"{name}/top-{int(row['canvas']) + 1}": float(row["power_whole"])
                    for row in rows
                }
                metrics |= tops | {f"{name}/std": pstdev(_defined(rows, "power_whole") or [0.0])}
    return metrics


def _defined(rows: Sequence[Row], value: str) -> list[float]:
    """The powers of classes that are recognised at all."""
    return [number for row in rows if math.isfinite(number := float(row[value]))]


def _mean_and_std(name: str, rows: Sequence[Row], value: str) -> dict[str, float]:
    found = _defined(rows, value)
    return {name: fmean(found), f"{name}/std": pstdev(found)} if found else {name: math.nan}


def _transfer_metrics(rows: Sequence[Row]) -> dict[str, float]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        name = f"predictive_power/transfer/{row['source']}/{row['size']}/{row['network']}"
        grouped.setdefault(name, []).append(row)
    sums = {
        name: [math.fsum(_defined(found, value)) for value in ("power", "explained")]
        for name, found in grouped.items()
    }
    return {name: there / home for name, (there, home) in sums.items() if home}


def _figures(judged: Sequence[Judged], subject: Subject) -> Mapping[str, Figure]:
    by_source: dict[str, list[Judged]] = {}
    columns, labels = {}, {}
    for one in judged:
        by_source.setdefault(one.contest.source, []).append(one)
        title = f"{one.contest.source} {_size(one.contest)}"
        columns[title] = torch.stack([candidate.picture for candidate in one.best])
        labels[title] = torch.tensor([candidate.label for candidate in one.best])
    return {
        "patterns": sheet(columns, labels, subject.data.classes),
        "power": _chart([ones for ones in by_source.values() if ones[0].contest.divided]),
    }


def _size(contest: Contest) -> str:
    return f"{100 * float(contest.size):g}%" if contest.divided else contest.size


def _chart(sources: Sequence[Sequence[Judged]]) -> Figure:
    """Mean power by size, a line a source (ISCP, Figure 2)."""
    figure = Figure(figsize=(4.6, 3), dpi=120, layout="constrained")
    axes = figure.subplots()
    for ones in sources:
        sizes = [100 * float(one.contest.size) for one in ones]
        means = [fmean(_defined(one.rows, "power") or [math.nan]) for one in ones]
        axes.plot(sizes, means, marker="o", label=ones[0].contest.source)
    axes.set_xlabel("pattern, % of the image")
    axes.set_ylabel("mean predictive power")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    if sources:
        axes.legend(frameon=False)
    return figure
