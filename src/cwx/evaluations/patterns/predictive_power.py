"""The predictive power of patterns and perturbations (ISCP, §4 and Appendices B-E; I8, I16-I20)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, pstdev

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.evaluations.outcome import Outcome, Row, Sources, mean_over_networks, measure_networks
from cwx.evaluations.patterns.probe import Predictions, Probe
from cwx.evaluations.patterns.selection import (
    Candidate,
    CandidateScore,
    CandidateSet,
    candidates_by_radius,
    candidates_of_size,
    lowest_loss_by_class,
    score_candidates,
)
from cwx.explanations.drawing import sheet
from cwx.explanations.patterns import Patterns, Perturbations
from cwx.functional.mask_search import pixels
from cwx.storage.metric_names import class_metric
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class PredictivePower:
    """PW of every source's patterns on the network they explain, and on all other networks.

    The best canvas of a class is the one whose pattern, cut to the size, has the lowest loss on
    the images of the search (D_n).

    - ``predictive_power/power/<source>/<size>``: the mean over classes on test images outside D;
      ``…/std`` the std over classes (ddof 0), ``…/class/<class>`` the power of a class.
    - ``predictive_power/whole/…``: the same on all test images, as in the paper's tables.
    - ``predictive_power/canvases/<source>/<size>/class/<class>/top-<i>``: the power of canvas i
      of a class on all test images, i from 1 in the order of preference; ``…/std`` over i.
    - ``predictive_power/transfer/<source>/<size>/<network>``: the mean power on that network,
      divided by the mean power on the explained network.

    The power of universal perturbations is their success rate, not divided by the accuracy. A
    class that the network never recognises has no power and is left out of means.

    The tables are ``predictive_power`` (a row per class), ``predictive_power_canvases`` (a row per
    canvas) and ``predictive_power_transfer``. In the latter, ``printed_rate`` is the ratio as the
    paper prints it, explained network over other network. The figures are ``predictive_power``
    (power by size) and ``predictive_power_patterns``.

    Args:
        sizes: fractions of the image's pixels in 0-1.
        images: at most so many test images, evenly spaced; null for all.

    Raises:
        ValueError: `sizes` is empty, or `images` is below 1.
    """

    def __init__(self, *, sizes: Sequence[float], images: int | None) -> None:
        if not sizes:
            raise ValueError("evaluation.predictive_power.sizes is empty: give fractions in 0-1")
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
        test = subject.data.splits.test
        indices = test.spread_indices(self.images)
        probes: dict[str, Probe] = {}
        powers = []
        for candidates in self._candidate_sets(sources):
            if candidates.explains not in probes:
                network = subject.first_network(candidates.explains)
                probes[candidates.explains] = Probe(subject, network, test.at(indices))
            powers.append(_measure(candidates, probes[candidates.explains], indices, subject))
        transfer_rows = _transfer(subject, powers, indices)
        tables: dict[str, list[Row]] = {
            "predictive_power": [row for power in powers for row in power.class_rows],
            "predictive_power_canvases": [row for power in powers for row in power.canvas_rows],
        }
        if transfer_rows:
            tables["predictive_power_transfer"] = transfer_rows
        return Outcome(
            metrics=_metrics(powers) | _transfer_metrics(transfer_rows),
            tables=tables,
            figures=_figures(powers, subject),
        )

    def _candidate_sets(self, sources: Sources) -> list[CandidateSet]:
        """Every source's patterns by size and perturbations by radius."""
        sets: list[CandidateSet] = []
        for source, output in sources.items():
            if isinstance(output, Patterns):
                sets += [candidates_of_size(source, output, size) for size in self.sizes]
            elif isinstance(output, Perturbations):
                sets += candidates_by_radius(source, output)
        return sets


@dataclass(frozen=True, kw_only=True)
class SetPower:
    """The powers of a candidate set.

    Attributes:
        candidates: the set.
        best, class_rows: the candidate of lowest loss of each class, and its row.
        canvas_rows: a row for each candidate.
    """

    candidates: CandidateSet
    best: Sequence[Candidate]
    class_rows: list[Row]
    canvas_rows: list[Row]


def _measure(candidates: CandidateSet, probe: Probe, indices: Tensor, subject: Subject) -> SetPower:
    searched = candidates.searched[indices]

    def rows(scores: Sequence[CandidateScore]) -> list[Row]:
        return [_row(candidates, s, probe, searched, subject.data.classes) for s in scores]

    scores = score_candidates(candidates, probe, searched)
    best = lowest_loss_by_class(scores)
    return SetPower(
        candidates=candidates,
        best=[score.candidate for score in best],
        class_rows=rows(best),
        canvas_rows=rows(scores),
    )


def _row(
    candidates: CandidateSet,
    score: CandidateScore,
    probe: Probe,
    searched: Tensor,
    classes: Sequence[str],
) -> Row:
    candidate = score.candidate
    return {
        "source": candidates.source,
        "size": candidates.size,
        "class": classes[candidate.label],
        "canvas": candidate.canvas,
        "tied": candidate.tied,
        "loss": score.loss,
        **_powers(
            score.predictions, probe, candidate.label, searched, relative=candidates.relative
        ),
    }


def _powers(
    predictions: Predictions, probe: Probe, label: int, searched: Tensor, *, relative: bool
) -> dict[str, float]:
    # If the search used all images, the power is on all of them.
    outside = ~searched if not searched.all() else searched
    held_out = probe.power(predictions, label, outside)
    whole = probe.power(predictions, label, torch.ones_like(searched))
    return {
        "power": (held_out.compute() if relative else held_out.success).item(),
        "power_whole": (whole.compute() if relative else whole.success).item(),
        "success": held_out.success.item(),
        "accuracy": held_out.accuracy.item(),
    }


def _transfer(subject: Subject, powers: Sequence[SetPower], indices: Tensor) -> list[Row]:
    """The power of each class's best pattern on every network and on the explained network."""
    panel = subject.panel()
    if sum(map(len, panel.values())) < 2:
        return []
    images = subject.data.splits.test.at(indices)

    def measure(network: nn.Module) -> list[Row]:
        probe = Probe(subject, network, images)
        return [
            {
                "source": row["source"],
                "size": row["size"],
                "class": row["class"],
                "explained": row["power"],
                "power": _powers(
                    probe.predict(candidate.attach, candidate.label),
                    probe,
                    candidate.label,
                    power.candidates.searched[indices],
                    relative=power.candidates.relative,
                )["power"],
            }
            for power in powers
            for candidate, row in zip(power.best, power.class_rows, strict=True)
        ]

    return [
        {
            **row,
            "rate": _ratio(row, "power", "explained"),
            "printed_rate": _ratio(row, "explained", "power"),
        }
        for row in mean_over_networks(measure_networks(panel, measure), values=("power",))
    ]


def _ratio(row: Row, numerator: str, denominator: str) -> float | str:
    """The ratio of two columns, empty if it is not finite."""
    divisor = float(row[denominator])
    ratio = float(row[numerator]) / divisor if divisor else math.nan
    return ratio if math.isfinite(ratio) else ""


def _metrics(powers: Sequence[SetPower]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for power in powers:
        source_and_size = f"{power.candidates.source}/{power.candidates.size}"
        for kind, column in (("power", "power"), ("whole", "power_whole")):
            name = f"predictive_power/{kind}/{source_and_size}"
            metrics |= _mean_and_std(name, power.class_rows, column)
            for row in power.class_rows:
                metrics[class_metric(name, str(row["class"]))] = float(row[column])
        for label, canvases in groupby(power.canvas_rows, key=lambda row: row["class"]):
            name = class_metric(f"predictive_power/canvases/{source_and_size}", str(label))
            if len(rows := [*canvases]) > 1:
                metrics |= {
                    f"{name}/top-{int(row['canvas']) + 1}": float(row["power_whole"])
                    for row in rows
                }
                metrics[f"{name}/std"] = pstdev(_finite(rows, "power_whole") or [0.0])
    return metrics


def _finite(rows: Sequence[Row], column: str) -> list[float]:
    """The finite values of a column: those of classes that the network recognises."""
    return [value for row in rows if math.isfinite(value := float(row[column]))]


def _mean_and_std(name: str, rows: Sequence[Row], column: str) -> dict[str, float]:
    values = _finite(rows, column)
    return {name: fmean(values), f"{name}/std": pstdev(values)} if values else {name: math.nan}


def _transfer_metrics(rows: Sequence[Row]) -> dict[str, float]:
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        name = f"predictive_power/transfer/{row['source']}/{row['size']}/{row['network']}"
        by_name.setdefault(name, []).append(row)
    sums = {
        name: [math.fsum(_finite(group, column)) for column in ("power", "explained")]
        for name, group in by_name.items()
    }
    return {name: other / explained for name, (other, explained) in sums.items() if explained}


def _figures(powers: Sequence[SetPower], subject: Subject) -> Mapping[str, Figure]:
    by_source: dict[str, list[SetPower]] = {}
    columns, labels = {}, {}
    for power in powers:
        by_source.setdefault(power.candidates.source, []).append(power)
        title = f"{power.candidates.source} {_size_words(power.candidates)}"
        columns[title] = torch.stack([candidate.picture for candidate in power.best])
        labels[title] = torch.tensor([candidate.label for candidate in power.best])
    return {
        "predictive_power_patterns": sheet(columns, labels, subject.data.classes),
        "predictive_power": _chart([p for p in by_source.values() if p[0].candidates.relative]),
    }


def _size_words(candidates: CandidateSet) -> str:
    return f"{100 * float(candidates.size):g}%" if candidates.relative else candidates.size


def _chart(sources: Sequence[Sequence[SetPower]]) -> Figure:
    """Mean power by size, a line per source (ISCP, Figure 2)."""
    figure = Figure(figsize=(4.6, 3), dpi=120, layout="constrained")
    axes = figure.subplots()
    for powers in sources:
        sizes = [100 * float(power.candidates.size) for power in powers]
        means = [fmean(_finite(power.class_rows, "power") or [math.nan]) for power in powers]
        axes.plot(sizes, means, marker="o", label=powers[0].candidates.source)
    axes.set_xlabel("pattern, % of the image")
    axes.set_ylabel("mean predictive power")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    if sources:
        axes.legend(frameon=False)
    return figure
