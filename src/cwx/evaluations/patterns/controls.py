"""Controls of patterns: random masks, and patterns of a network with re-drawn weights."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
    canvas_of,
    score_candidates,
)
from cwx.evaluations.patterns.set_power import images_outside, success_rate
from cwx.explanations.patterns import BinaryPatterns, Patterns
from cwx.functional.mask_search import pixels
from cwx.functional.rng import stream
from cwx.storage.metric_names import class_metric
from cwx.training.plan import Plan
from cwx.training.subject import Subject

PATTERN, RANDOM, OTHER = "pattern", "random_masks", "other_canvas"
NONE, REDRAWN = "no_pattern", "redrawn"
_TITLES = {
    PATTERN: "pattern",
    RANDOM: "random masks of its size",
    OTHER: "its mask on canvases of other classes",
    REDRAWN: "pattern of the network with re-drawn weights",
    NONE: "no pattern",
}
_COLOURS = {PATTERN: "#3b6fb6", RANDOM: "#b8b8b8", OTHER: "#7fa88f", NONE: "#e2c08d"}
# Beyond so many classes the figure shows the means alone.
_MOST_BARS = 20


class PatternControls:
    """How often patterns send images of other classes to their class, beside controls.

    - ``pattern_controls/<source>/<size>/pattern``: the mean over classes of the success rate on
      test images of other classes outside D_n, of the pattern of lowest loss; ``…/class/<class>``
      that of a class.
    - ``…/random_masks``: the same canvas through a random mask of the same size; ``…/std`` is the
      standard deviation (ddof 0) of the mean over the draws.
    - ``…/other_canvas``: the mask of the pattern on canvases of other classes, with ``…/std``
      alike; missing if the method explains a single class.
    - ``…/no_pattern``: the images as they are.
    - ``…/redrawn``: patterns of the network with re-drawn weights, on that network, less the
      success rate without a pattern there.

    A pattern that does no better than these says nothing about the class.

    Args:
        source: the method of the patterns.
        redrawn: the method that searches the network with re-drawn weights; null for none.
        sizes: fractions of the image's pixels in 0-1.
        images: at most so many test images, evenly spaced; null for all.
        draws: the number of random masks of a class and size, and of canvases of other classes.
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
        controls = [c for size in self.sizes for c in self._controls(probe, patterns, size)]
        redrawn: dict[float, float] = {}
        if self.redrawn is not None:
            other, other_patterns = self._probe(subject, sources, self.redrawn)
            redrawn = {
                size: fmean(
                    control.pattern - control.no_pattern
                    for control in self._controls(other, other_patterns, size, draws=0)
                )
                for size in self.sizes
            }
        rows = [control.row for control in controls]
        return Outcome(
            metrics=self._metrics(controls, redrawn),
            tables={"pattern_controls": rows},
            figures={"pattern_controls": _chart(rows, redrawn)},
        )

    def _probe(self, subject: Subject, sources: Sources, name: str) -> tuple[Probe, Patterns]:
        patterns = sources[name]
        assert isinstance(patterns, Patterns)
        test = subject.data.splits.test
        indices = test.spread_indices(self.images)
        probe = Probe(subject, subject.first_network(patterns.explains), test.at(indices))
        return probe, replace(patterns, searched=patterns.searched[indices])

    def _controls(
        self, probe: Probe, patterns: Patterns, size: float, draws: int | None = None
    ) -> Iterator["ClassControls"]:
        """The success rates of each class."""
        count = self.draws if draws is None else draws
        candidates = candidates_of_size(self.source, patterns, size)
        scores = score_candidates(candidates, probe, patterns.searched)
        for score in best_by_class(scores, "lowest_loss"):
            candidate = score.candidate
            counted = images_outside(probe, candidate.label, patterns.searched)
            canvas = canvas_of(patterns, candidate)
            yield ClassControls(
                size=size,
                name=probe.subject.data.classes[candidate.label],
                pattern=success_rate(score.predictions.classes, candidate.label, counted),
                no_pattern=success_rate(probe.clean, candidate.label, counted),
                random=[
                    self._success(probe, _with_random_mask(candidate, canvas, draw), counted)
                    for draw in range(count)
                ],
                other=[
                    self._success(probe, _with(candidate, candidate.mask, canvas), counted)
                    for canvas in _other_canvases(patterns, candidate, count)
                ],
            )

    @staticmethod
    def _success(probe: Probe, candidate: Candidate, counted: Tensor) -> float:
        predictions = probe.predict(candidate.attach, candidate.label)
        return success_rate(predictions.classes, candidate.label, counted)

    def _metrics(
        self, controls: Sequence["ClassControls"], redrawn: dict[float, float]
    ) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for size in self.sizes:
            name = f"pattern_controls/{self.source}/{size:g}"
            of_size = [control for control in controls if control.size == size]
            has_others = all(control.other for control in of_size)
            for column in (PATTERN, RANDOM, *((OTHER,) if has_others else ()), NONE):
                metrics[f"{name}/{column}"] = fmean(float(c.row[column]) for c in of_size)
            drawn = {RANDOM: [control.random for control in of_size]}
            if has_others:
                drawn[OTHER] = [control.other for control in of_size]
            for column, by_class in drawn.items():
                means = [fmean(draws) for draws in zip(*by_class, strict=True)]
                metrics[f"{name}/{column}/std"] = pstdev(means)
            if size in redrawn:
                metrics[f"{name}/{REDRAWN}"] = redrawn[size]
            for control in of_size:
                metrics[class_metric(f"{name}/{PATTERN}", control.name)] = control.pattern
        return metrics


@dataclass(frozen=True, kw_only=True)
class ClassControls:
    """The success rates of the pattern of a class, in 0-1.

    Attributes:
        size: fraction of the image's pixels.
        name: of the class.
        pattern: with the pattern.
        no_pattern: without one.
        random: with each random mask.
        other: with the pattern's mask on each canvas of another class.
    """

    size: float
    name: str
    pattern: float
    no_pattern: float
    random: Sequence[float]
    other: Sequence[float]

    @property
    def row(self) -> Row:
        """The row of the table."""
        return {
            "size": f"{self.size:g}",
            "class": self.name,
            PATTERN: self.pattern,
            RANDOM: fmean(self.random) if self.random else math.nan,
            f"{RANDOM}_std": pstdev(self.random) if self.random else math.nan,
            OTHER: fmean(self.other) if self.other else math.nan,
            f"{OTHER}_std": pstdev(self.other) if self.other else math.nan,
            NONE: self.no_pattern,
        }


def _with_random_mask(candidate: Candidate, canvas: Tensor, draw: int) -> Candidate:
    """The candidate with a random mask of as many pixels, on its canvas."""
    assert candidate.mask is not None
    generator = stream(0, candidate.label, candidate.canvas, draw)
    order = torch.randperm(candidate.mask.numel(), generator=generator)
    mask = torch.zeros(candidate.mask.numel(), dtype=torch.bool)
    mask[order[: int(candidate.mask.sum())]] = True
    return _with(candidate, mask.view_as(candidate.mask), canvas)


def _other_canvases(patterns: Patterns, candidate: Candidate, count: int) -> Tensor:
    """At most `count` random canvases of other classes, ``[m, C, H, W]``."""
    others = (patterns.labels != candidate.label).nonzero()[:, 0]
    generator = stream(1, candidate.label, candidate.canvas)
    order = torch.randperm(len(others), generator=generator)
    # The same number for every class, also where a class has fewer others.
    wanted = torch.arange(count if len(others) else 0) % max(1, len(others))
    return patterns.canvases[others[order[wanted]]]


def _with(candidate: Candidate, mask: Tensor | None, canvas: Tensor) -> Candidate:
    """The candidate with another mask or canvas."""
    assert mask is not None
    pattern = BinaryPatterns(masks=mask[None], canvases=canvas[None], tied=torch.zeros(1))
    return replace(candidate, attach=pattern.attach(0), mask=mask)


def _chart(rows: Sequence[Row], redrawn: dict[float, float]) -> Figure:
    """Success rates by class at the largest size, beside the controls."""
    size = max(rows, key=lambda row: float(row["size"]))["size"]
    of_size = [row for row in rows if row["size"] == size]
    columns = [c for c in _COLOURS if not any(math.isnan(float(row[c])) for row in of_size)]
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
        label, colour = _TITLES[column], _COLOURS[column]
        axes.barh(heights + offset, values, 0.93 * thickness, label=label, color=colour)
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
