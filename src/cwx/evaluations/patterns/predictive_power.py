"""The predictive power of patterns and perturbations (ISCP, §4 and Appendices B-E; I8, I16-I20)."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean, pstdev
from typing import Annotated, Literal

import torch
from matplotlib.figure import Figure

from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.patterns.selection import (
    CandidateSet,
    candidates_by_radius,
    candidates_of_size,
)
from cwx.evaluations.patterns.set_power import (
    SetPower,
    finite,
    measure_set,
    split_by_target,
)
from cwx.evaluations.patterns.transfer import transfer_metrics, transfer_rows
from cwx.explanations.drawing import sheet
from cwx.explanations.patterns import Patterns, Perturbations
from cwx.functional.mask_search import pixels
from cwx.storage.metric_names import class_metric
from cwx.training.plan import Plan
from cwx.training.subject import REDRAWN, Subject


class PredictivePower:
    """PW of every source's patterns on the network they explain, and on all other networks.

    Of the canvases of a class, the one whose pattern, cut to the size, is best by `canvas_choice`
    stands for the class.

    - ``predictive_power/power/<source>/<size>``: the mean over classes on test images outside D_n;
      ``…/std`` the std over classes (ddof 0), ``…/class/<class>`` the power of a class.
    - ``predictive_power/whole/…``: the same on all test images, as in the paper's tables.
    - ``predictive_power/canvases/<source>/<size>/class/<class>/top-<i>``: the power of canvas i
      of a class on all test images, i from 1 in the order of preference; ``…/std`` over i.
    - ``predictive_power/transfer/<source>/<size>/<network>``: the mean power on that network,
      divided by the mean power on the explained network; ``…/class/<class>`` that of a class.

    If the training images have a backdoor with one target, ``…/target`` and ``…/others`` beside
    the means of power and transfer are those of its target class and of all other classes.

    The power of universal perturbations is their success rate, not divided by the accuracy. A
    class that the network never recognises has no power and is left out of means; where there are
    such classes, ``…/left_out`` beside the mean is their number.

    The tables are ``predictive_power`` (a row per class), ``predictive_power_canvases`` (a row per
    canvas) and ``predictive_power_transfer``. In the latter, ``printed_rate`` is the ratio as the
    paper prints it, explained network over other network. The figures are ``predictive_power``
    (power by size) and ``predictive_power_patterns``.

    Args:
        sizes: fractions of the image's pixels in 0-1.
        images: at most so many test images, evenly spaced; null for all.
        canvas_choice: ``lowest_loss`` on the images of the search (D_n; ISCP, §3), or
            ``highest_power`` on all images, as in the paper's Tables 1 and 2. The latter chooses on
            the images that the power is measured on, so that it is optimistic.
    """

    def __init__(
        self,
        *,
        sizes: Annotated[Sequence[Annotated[float, "> 0, <= 1"]], "not empty, distinct"],
        images: Annotated[int, ">= 1"] | None,
        canvas_choice: Literal["lowest_loss", "highest_power"],
    ) -> None:
        self.sizes, self.images, self.canvas_choice = list(sizes), images, canvas_choice

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
            powers.append(
                measure_set(
                    candidates,
                    probes[candidates.explains],
                    candidates.searched[indices],
                    subject.data.classes,
                    self.canvas_choice,
                )
            )
        transfer = transfer_rows(subject, powers, indices)
        backdoor = subject.data.corrupted.backdoor
        index = None if backdoor is None else backdoor.target
        target = None if index is None else subject.data.classes[index]
        tables: dict[str, list[Row]] = {
            "predictive_power": [row for power in powers for row in power.class_rows],
            "predictive_power_canvases": [row for power in powers for row in power.canvas_rows],
        }
        if transfer:
            tables["predictive_power_transfer"] = transfer
        return Outcome(
            metrics=_metrics(powers, target) | transfer_metrics(transfer, target),
            tables=tables,
            figures=_figures(powers, subject),
        )

    def _candidate_sets(self, sources: Sources) -> list[CandidateSet]:
        """Every source's patterns by size and perturbations by radius; without controls."""
        sets: list[CandidateSet] = []
        for source, output in sources.items():
            if getattr(output, "explains", None) == REDRAWN:
                continue
            if isinstance(output, Patterns):
                sets += [candidates_of_size(source, output, size) for size in self.sizes]
            elif isinstance(output, Perturbations):
                sets += candidates_by_radius(source, output)
        return sets


def _metrics(powers: Sequence[SetPower], target: str | None) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for power in powers:
        source_and_size = f"{power.candidates.source}/{power.candidates.size}"
        for kind, column in (("power", "power"), ("whole", "power_whole")):
            name = f"predictive_power/{kind}/{source_and_size}"
            metrics |= _mean_and_std(name, power.class_rows, column)
            for part, rows in split_by_target(power.class_rows, target).items():
                metrics |= _mean_and_std(f"{name}/{part}", rows, column)
            for row in power.class_rows:
                metrics[class_metric(name, str(row["class"]))] = float(row[column])
        for label, canvases in groupby(power.canvas_rows, key=lambda row: row["class"]):
            name = class_metric(f"predictive_power/canvases/{source_and_size}", str(label))
            if len(of_class := [*canvases]) > 1:
                metrics |= {
                    f"{name}/top-{int(row['canvas']) + 1}": float(row["power_whole"])
                    for row in of_class
                }
                if values := finite(of_class, "power_whole"):
                    metrics[f"{name}/std"] = pstdev(values)
    return metrics


def _mean_and_std(name: str, rows: Sequence[Row], column: str) -> dict[str, float]:
    values = finite(rows, column)
    left_out = len(rows) - len(values)
    return (
        {name: fmean(values), f"{name}/std": pstdev(values)} if values else {name: math.nan}
    ) | ({f"{name}/left_out": left_out} if left_out else {})


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
        means = [fmean(finite(power.class_rows, "power") or [math.nan]) for power in powers]
        axes.plot(sizes, means, marker="o", label=powers[0].candidates.source)
    axes.set_xlabel("pattern, % of the image")
    axes.set_ylabel("mean predictive power")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    if sources:
        axes.legend(frameon=False)
    return figure
