"""Controls of patterns: random masks, and patterns of a network with re-drawn weights."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean, pstdev
from typing import Annotated

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.patterns.selection import (
    Candidate,
    best_by_class,
    candidates_of_size,
    score_candidates,
)
from cwx.explanations.patterns import Patterns
from cwx.functional.mask_search import pixels
from cwx.functional.rng import stream
from cwx.storage.metric_names import class_metric
from cwx.training.plan import Plan
from cwx.training.subject import Subject

PATTERN, RANDOM, NONE, REDRAWN = "pattern", "random_masks", "no_pattern", "redrawn"
_TITLES = {
    PATTERN: "pattern",
    RANDOM: "random masks of its size",
    REDRAWN: "pattern of the network with re-drawn weights",
    NONE: "no pattern",
}
# Beyond so many classes the figure shows the means alone.
_MOST_BARS = 20


class PatternControls:
    """How often patterns send images of other classes to their class, beside controls.

    - ``pattern_controls/<source>/<size>/pattern``: the mean over classes of the success rate on
      test images of other classes outside D_n, of the pattern of lowest loss; ``…/class/<class>``
      that of a class.
    - ``…/random_masks``: the same canvas through a random mask of the same size; ``…/std`` is the
      standard deviation (ddof 0) of the mean over the draws.
    - ``…/no_pattern``: the images as they are.
    - ``…/redrawn``: patterns of the network with re-drawn weights, on that network, less the
      success rate without a pattern there.

    A pattern that does no better than these says nothing about the class.

    Args:
        source: the method of the patterns.
        redrawn: the method that searches the network with re-drawn weights; null for none.
        sizes: fractions of the image's pixels in 0-1.
        images: at most so many test images, evenly spaced; null for all.
        draws: the number of random masks of a class and size.
    """

    def __init__(
        self,
        *,
        source: str,
        redrawn: str | None,
        sizes: Annotated[Sequence[Annotated[float, "> 0, <= 1"]], "not empty, distinct"],
        images: Annotated[int, ">= 1"] | None,
        draws: Annotated[int, ">= 1"],
    ) -> None:
        self.source, self.redrawn = source, redrawn
        self.sizes, self.images, self.draws = list(sizes), images, draws

    def check(self, plan: Plan) -> None:
        for size in self.sizes:
            pixels(size, *plan.data.image_shape[1:])
        for setting, name in (("source", self.source), ("redrawn", self.redrawn)):
            if name is not None and plan.leaves.get(name) is not Patterns:
                raise ValueError(
                    f"evaluation.pattern_controls.{setting} is {name!r}, which is no method of "
                    f"this study that searches patterns: choose method=[…,{name}], or another"
                )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        probe, patterns = self._probe(subject, sources, self.source)
        rows = [row for size in self.sizes for row in self._rows(probe, patterns, size)]
        redrawn: dict[float, float] = {}
        if self.redrawn is not None:
            other, other_patterns = self._probe(subject, sources, self.redrawn)
            redrawn = {
                size: fmean(
                    float(row[PATTERN]) - float(row[NONE])
                    for row in self._rows(other, other_patterns, size, draws=0)
                )
                for size in self.sizes
            }
        return Outcome(
            metrics=self._metrics(rows, redrawn),
            tables={
                "pattern_controls": [{k: v for k, v in row.items() if k != "draws"} for row in rows]
            },
            figures={"pattern_controls": _chart(rows, redrawn)},
        )

    def _probe(self, subject: Subject, sources: Sources, name: str) -> tuple[Probe, Patterns]:
        patterns = sources[name]
        assert isinstance(patterns, Patterns)
        test = subject.data.splits.test
        indices = test.spread_indices(self.images)
        probe = Probe(subject, subject.first_network(patterns.explains), test.at(indices))
        return probe, replace(patterns, searched=patterns.searched[indices])

    def _rows(
        self, probe: Probe, patterns: Patterns, size: float, draws: int | None = None
    ) -> Iterator[Row]:
        """A row per class."""
        candidates = candidates_of_size(self.source, patterns, size)
        scores = score_candidates(candidates, probe, patterns.searched)
        by_key = {
            (int(label), int((patterns.labels[:i] == label).sum())): i
            for i, label in enumerate(patterns.labels)
        }
        for score in best_by_class(scores, "lowest_loss"):
            candidate = score.candidate
            others = probe.images.labels != candidate.label
            outside = others & ~patterns.searched
            counted = outside if outside.any() else others
            canvas = patterns.canvases[by_key[candidate.label, candidate.canvas]]
            random = [
                self._success(probe, _with_random_mask(candidate, canvas, draw), counted)
                for draw in range(self.draws if draws is None else draws)
            ]
            yield {
                "size": f"{size:g}",
                "class": probe.subject.data.classes[candidate.label],
                PATTERN: _fraction(score.predictions.classes, candidate.label, counted),
                RANDOM: fmean(random) if random else math.nan,
                f"{RANDOM}_std": pstdev(random) if random else math.nan,
                NONE: _fraction(probe.clean, candidate.label, counted),
                "draws": random,  # type: ignore[dict-item]
            }

    @staticmethod
    def _success(probe: Probe, candidate: Candidate, counted: Tensor) -> float:
        predictions = probe.predict(candidate.attach, candidate.label)
        return _fraction(predictions.classes, candidate.label, counted)

    def _metrics(self, rows: Sequence[Row], redrawn: dict[float, float]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for size in self.sizes:
            name = f"pattern_controls/{self.source}/{size:g}"
            of_size = [row for row in rows if row["size"] == f"{size:g}"]
            for column in (PATTERN, RANDOM, NONE):
                metrics[f"{name}/{column}"] = fmean(float(row[column]) for row in of_size)
            draws = [row["draws"] for row in of_size]
            means = [fmean(values) for values in zip(*draws, strict=True)]
            metrics[f"{name}/{RANDOM}/std"] = pstdev(means)
            if size in redrawn:
                metrics[f"{name}/{REDRAWN}"] = redrawn[size]
            for row in of_size:
                metrics[class_metric(f"{name}/{PATTERN}", str(row["class"]))] = float(row[PATTERN])
        return metrics


def _with_random_mask(candidate: Candidate, canvas: Tensor, draw: int) -> Candidate:
    """The candidate with a random mask of as many pixels, on its canvas."""
    assert candidate.mask is not None
    generator = stream(0, candidate.label, candidate.canvas, draw)
    order = torch.randperm(candidate.mask.numel(), generator=generator)
    mask = torch.zeros(candidate.mask.numel(), dtype=torch.bool)
    mask[order[: int(candidate.mask.sum())]] = True
    mask = mask.view_as(candidate.mask)

    def attach(images: Tensor) -> Tensor:
        return torch.where(mask.to(images.device), canvas.to(images.device, images.dtype), images)

    return replace(candidate, attach=attach, mask=mask)


def _fraction(predictions: Tensor, label: int, counted: Tensor) -> float:
    return (predictions[counted] == label).double().mean().item()


def _chart(rows: Sequence[Row], redrawn: dict[float, float]) -> Figure:
    """Success rates by class at the largest size, beside the controls."""
    size = max(rows, key=lambda row: float(row["size"]))["size"]
    of_size = [row for row in rows if row["size"] == size]
    if len(of_size) > _MOST_BARS:
        of_size = [
            {"class": "mean over classes"}
            | {c: fmean(float(row[c]) for row in of_size) for c in (PATTERN, RANDOM, NONE)}
        ]
    figure = Figure(figsize=(6.4, 0.8 + 0.34 * len(of_size) + 0.7), dpi=120, layout="constrained")
    axes = figure.subplots()
    heights = torch.arange(len(of_size), dtype=torch.float64).numpy()
    colours = {PATTERN: "#3b6fb6", RANDOM: "#b8b8b8", NONE: "#e2c08d"}
    for offset, column in zip((-0.27, 0.0, 0.27), colours, strict=True):
        values = [100 * float(row[column]) for row in of_size]
        axes.barh(heights + offset, values, 0.25, label=_TITLES[column], color=colours[column])
    if float(size) in redrawn:
        level = 100 * redrawn[float(size)]
        axes.axvline(level, color="#8b2f2f", linestyle="--", linewidth=1, label=_TITLES[REDRAWN])
    axes.set_yticks(heights, [str(row["class"]).replace("$", r"\$") for row in of_size])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(
        f"images of other classes sent to the class, % ({float(size):.0%} of the image)"
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper left", ncols=2, fontsize=8)
    return figure
