"""The predictive power of patterns and perturbations (ISCP, §4 and Appendices B-E)."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import Annotated, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.patterns.examples import PatternExample, examples_figure
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.patterns.selection import (
    CandidateSet,
    candidates_above,
    candidates_by_radius,
    candidates_of_size,
    canvas_of,
)
from cwx.evaluations.patterns.set_power import (
    SetPower,
    finite,
    measure_set,
    measured,
    split_by_target,
)
from cwx.evaluations.patterns.transfer import transfer_metrics, transfer_rows
from cwx.explanations.drawing import sheet
from cwx.explanations.patterns import MethodOutput, Patterns, Perturbations
from cwx.functional.mask_search import pixels
from cwx.functional.spread import population_std
from cwx.storage.metric_names import class_metric
from cwx.training.plan import Plan
from cwx.training.redrawn import is_redrawn
from cwx.training.subject import Subject


class PredictivePower:
    """PW of every source's patterns on the network they explain, and on all other networks.

    A pattern is the highest values of a mask, as many as a size says, or the values above a
    threshold γ (ISCP, Algorithm 1, line 11); ``<size>`` is then ``gamma-<γ>``. Of the canvases of a
    class, the one whose pattern of the size is best by `canvas_choice` stands for the class.

    - ``predictive_power/power/<source>/<size>``: the mean over classes on test images outside D_n;
      ``…/std`` the std over classes (ddof 0), ``…/class/<class>`` the power of a class. Missing if
      the search used all images.
    - ``predictive_power/whole/…``: the same on all test images, as in the paper's tables.
    - ``predictive_power/canvases/<source>/<size>/class/<class>/top-<i>``: the power of canvas i
      of a class on all test images, i from 1 in the order of preference; ``…/std`` over i.
    - ``predictive_power/area/<source>/gamma-<γ>``: the fraction of the image's pixels that γ keeps,
      the mean over classes; ``…/std`` and ``…/class/<class>`` alike.
    - ``predictive_power/transfer/<source>/<size>/<network>``: the mean power on that network,
      divided by the mean power on the explained network, both outside D_n;
      ``…/class/<class>`` that of a class.

    If the training images have a backdoor with one target, ``…/target`` and ``…/others`` beside
    the means of power and transfer are those of its target class and of all other classes.

    The power of universal perturbations is their success rate, not divided by the accuracy. A
    class that the network never recognises has no power and is left out of means, and so is a class
    without images of other classes outside D_n, and one of whose masks γ keeps nothing or
    everything (a warning names it); where there are such classes, ``…/left_out`` beside the mean is
    their number.

    The tables are ``predictive_power`` (a row per class), ``predictive_power_canvases`` (a row per
    canvas) and ``predictive_power_transfer``. In the latter, ``printed_rate`` is the ratio as the
    paper prints it, explained network over other network. The figures are ``predictive_power``
    (power by size), ``predictive_power_patterns``, and for each source of patterns
    ``pattern_examples_<source>``, its best patterns of the largest size on other images.

    Args:
        sizes: fractions of the image's pixels in 0-1.
        gammas: thresholds γ of the mask, in 0-1.
        images: at most so many test images, evenly spaced; null for all.
        canvas_choice: ``lowest_loss`` on the images of the search (D_n; ISCP, §3), or
            ``highest_power`` on all images, as in the paper's Tables 1 and 2. The latter chooses on
            the images that the power is measured on, so that it is optimistic.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        sizes: Annotated[Sequence[Annotated[float, "> 0, <= 1"]], "not empty, distinct"],
        gammas: Annotated[Sequence[Annotated[float, ">= 0, < 1"]], "distinct"],
        images: Annotated[int, ">= 1"] | None,
        canvas_choice: Literal["lowest_loss", "highest_power"],
    ) -> None:
        self.sizes, self.gammas = list(sizes), list(gammas)
        self.images, self.canvas_choice = images, canvas_choice

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
        for candidates in self._candidate_sets(sources, subject.data.classes):
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
            figures={
                **_figures(powers, subject),
                **self._examples(powers, probes, sources, indices),
            },
        )

    def _examples(
        self,
        powers: Sequence[SetPower],
        probes: Mapping[str, Probe],
        sources: Sources,
        indices: Tensor,
    ) -> Mapping[str, Figure]:
        """A figure per source of patterns, of the largest size."""
        figures = {}
        for source, patterns in sources.items():
            by_size = {
                float(power.candidates.size): power
                for power in powers
                if power.candidates.source == source and power.candidates.gamma is None
            }
            if isinstance(patterns, Patterns) and by_size:
                examples = [
                    PatternExample(
                        candidate=candidate,
                        canvas=canvas_of(patterns, candidate),
                        unseen=~patterns.searched[indices],
                    )
                    for candidate in by_size[max(by_size)].best
                ]
                figure = examples_figure(probes[patterns.explains], examples)
                figures[f"pattern_examples_{source}"] = figure
        return figures

    def _candidate_sets(self, sources: Sources, classes: Sequence[str]) -> list[CandidateSet]:
        """Every source's patterns by size and perturbations by radius; without controls.

        A threshold that keeps nothing or everything of all masks gives no set.
        """
        sets: list[CandidateSet] = []
        for source, output in sources.items():
            if _is_control(output):
                continue
            if isinstance(output, Patterns):
                sets += [candidates_of_size(source, output, size) for size in self.sizes]
                sets += [candidates_above(source, output, g, classes) for g in self.gammas]
            elif isinstance(output, Perturbations):
                sets += candidates_by_radius(source, output)
        return [candidates for candidates in sets if candidates.candidates]


def _is_control(output: MethodOutput) -> bool:
    """Whether patterns are controls, which evaluation.pattern_controls measures."""
    return isinstance(output, Patterns) and (
        is_redrawn(output.explains) or output.has_other_canvases
    )


def _metrics(powers: Sequence[SetPower], target: str | None) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for power in powers:
        source_and_size = f"{power.candidates.source}/{power.candidates.size}"
        for kind, column in (("power", "power"), ("whole", "power_whole")):
            name = f"predictive_power/{kind}/{source_and_size}"
            metrics |= _mean_and_std(name, power.class_rows, column, power.candidates.left_out)
            for part, rows in split_by_target(power.class_rows, target).items():
                metrics |= _mean_and_std(f"{name}/{part}", rows, column)
            for row in power.class_rows:
                if row[column] != "":
                    metrics[class_metric(name, str(row["class"]))] = float(row[column])
        if power.candidates.gamma is not None:
            name = f"predictive_power/area/{source_and_size}"
            metrics |= _mean_and_std(name, power.class_rows, "area")
            for row in power.class_rows:
                metrics[class_metric(name, str(row["class"]))] = float(row["area"])
        for label, canvases in groupby(power.canvas_rows, key=lambda row: row["class"]):
            name = class_metric(f"predictive_power/canvases/{source_and_size}", str(label))
            if len(of_class := [*canvases]) > 1:
                metrics |= {
                    f"{name}/top-{int(row['canvas']) + 1}": float(row["power_whole"])
                    for row in of_class
                }
                if values := finite(of_class, "power_whole"):
                    metrics[f"{name}/std"] = population_std(values)
    return metrics


def _mean_and_std(
    name: str, rows: Sequence[Row], column: str, without_row: int = 0
) -> dict[str, float]:
    if not measured(rows, column):
        return {}
    values = finite(rows, column)
    left_out = len(rows) - len(values) + without_row
    return (
        {name: fmean(values), f"{name}/std": population_std(values)} if values else {name: math.nan}
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
        "predictive_power": _chart(
            [
                powers
                for powers in by_source.values()
                if powers[0].candidates.relative
                and any(finite(power.class_rows, "power") for power in powers)
            ]
        ),
    }


def _size_words(candidates: CandidateSet) -> str:
    if candidates.gamma is not None:
        return f"mask > {candidates.gamma:g}"
    return f"{100 * float(candidates.size):g}%" if candidates.relative else candidates.size


def _chart(sources: Sequence[Sequence[SetPower]]) -> Figure:
    """Mean power by size, a line per source (ISCP, Figure 2); a mark per threshold γ."""
    figure = Figure(figsize=(4.6, 3), dpi=120, layout="constrained")
    axes = figure.subplots()
    for powers in sources:
        by_size = [power for power in powers if power.candidates.gamma is None]
        above = [power for power in powers if power.candidates.gamma is not None]
        sizes = [100 * float(power.candidates.size) for power in by_size]
        source = powers[0].candidates.source
        (line,) = axes.plot(sizes, [*map(_mean_power, by_size)], marker="o", label=source)
        if above:
            areas = [100 * fmean(finite(power.class_rows, "area")) for power in above]
            means = [*map(_mean_power, above)]
            label, colour = f"{source}, mask > γ", line.get_color()
            axes.plot(areas, means, "D", mfc="none", color=colour, label=label)
            for power, area, mean in zip(above, areas, means, strict=True):
                note = f"{power.candidates.gamma:g}"
                axes.annotate(note, (area, mean), (4, -9), textcoords="offset points", size=7)
    axes.set_xlabel("pattern, % of the image")
    axes.set_ylabel("mean predictive power")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    if sources:
        axes.legend(frameon=False)
    return figure


def _mean_power(power: SetPower) -> float:
    return fmean(finite(power.class_rows, "power") or [math.nan])
