"""Controls of patterns: random masks, other canvases, and searches that should find nothing."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Annotated

from torch import Tensor

from cwx.evaluations.outcome import Outcome, Sources
from cwx.evaluations.patterns.class_controls import ClassControls
from cwx.evaluations.patterns.control_candidates import (
    fewest_canvases,
    other_canvases,
    with_mask,
    with_random_mask,
    without_own_canvases,
)
from cwx.evaluations.patterns.controls_figure import (
    EQUAL_CHOICE,
    GAIN,
    NONE,
    OTHER,
    PATTERN,
    RANDOM,
    REDRAWN,
    SHUFFLED,
    chart,
)
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.patterns.selection import (
    Candidate,
    by_class,
    candidates_of_size,
    canvas_of,
    expected_of_fewer,
    score_candidates,
)
from cwx.evaluations.patterns.set_power import images_outside, success_rate
from cwx.explanations.patterns import Patterns
from cwx.functional.mask_search import pixels
from cwx.functional.spread import population_std
from cwx.storage.metric_names import class_metric
from cwx.training.plan import Plan
from cwx.training.subject import EXPERT, Subject


class PatternControls:
    """How often patterns send images of other classes to their class, beside controls.

    - ``pattern_controls/<source>/<size>/pattern``: the mean over classes of the success rate on
      test images of other classes outside D_n, of the pattern of lowest loss; ``…/class/<class>``
      that of a class.
    - ``…/equal_choice``: the same, chosen among as many canvases as the searches of ``shuffled``
      and ``redrawn`` have, which may be fewer: the mean over all such choices. Only beside such a
      search, whose own patterns are chosen alike.
    - ``…/random_masks``: the same canvas through a random mask of the same size; ``…/std`` is the
      standard deviation (ddof 0) of the mean over the draws.
    - ``…/other_canvas``: the mask of the pattern on canvases of other classes, with ``…/std``
      alike; missing if the method explains a single class.
    - ``…/shuffled``: patterns that were searched on canvases of another class, on the same network;
      not on those that equal the pattern's own.
    - ``…/no_pattern``: the images as they are.
    - ``…/gain``: the pattern's success rate less the highest of these of its class, of ``shuffled``
      at equal choice.
    - ``…/redrawn``: patterns of the network with re-drawn weights, on that network, less the
      success rate without a pattern there.

    A pattern that does no better than these says nothing about the class. If the search on canvases
    of another class does as well, the pattern is not of the class in the canvas: the search makes
    what the network reacts to out of any pixels. A class without test images outside D_n has empty
    cells in the table and is in no mean.

    Args:
        source: the method of the patterns.
        redrawn: the method that searches the network with re-drawn weights; null for none.
        shuffled: the method that searches on canvases of other classes; null for none.
        sizes: fractions of the image's pixels in 0-1.
        images: at most so many test images, evenly spaced; null for all.
        draws: the number of random masks of a class and size, and of canvases of other classes.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        source: str,
        redrawn: str | None,
        shuffled: str | None,
        sizes: Annotated[Sequence[Annotated[float, "> 0, <= 1"]], "not empty, distinct"],
        images: Annotated[int, ">= 1"] | None,
        draws: Annotated[int, ">= 1"],
    ) -> None:
        self.source, self.redrawn, self.shuffled = source, redrawn, shuffled
        self.sizes, self.images, self.draws = list(sizes), images, draws

    def check(self, plan: Plan) -> None:
        for size in self.sizes:
            pixels(size, *plan.data.image_shape[1:])
        for setting, name in (
            ("source", self.source),
            ("redrawn", self.redrawn),
            ("shuffled", self.shuffled),
        ):
            if name is not None and plan.leaves.get(name) is not Patterns:
                none = "another" if setting == "source" else "leave the control out with null"
                raise ValueError(
                    f"evaluation.pattern_controls.{setting} is {name!r}, which is no method of "
                    f"this study that searches patterns: choose method=[…,{name}], or {none}"
                )
            if name is not None:
                plan.require_images_outside(f"evaluation.pattern_controls.{setting}", name)
        explained = plan.explains.get(self.source, EXPERT)
        if self.redrawn is not None and explained != EXPERT:
            raise ValueError(
                f"evaluation.pattern_controls.redrawn is {self.redrawn!r}, which re-draws the "
                f"weights of the expert, and {self.source!r} explains {explained!r}: leave the "
                f"control out with null, or set method.{self.source}.explains={EXPERT}"
            )
        kinds = [plan.explains.get(name) for name in (self.source, self.shuffled) if name]
        if len(set(kinds)) > 1:
            raise ValueError(
                f"evaluation.pattern_controls.shuffled is {self.shuffled!r}, which explains "
                f"{kinds[1]!r}, and {self.source!r} explains {kinds[0]!r}: set "
                f"method.{self.shuffled}.explains={kinds[0]}"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        patterns = self._patterns(sources, self.source)
        probe = self._probe(subject, patterns)
        searches = {
            name: self._patterns(sources, name)
            for name in (self.shuffled, self.redrawn)
            if name is not None
        }
        if self.shuffled is not None:
            of_others = without_own_canvases(searches.pop(self.shuffled), patterns)
            if len(of_others.labels):
                searches[self.shuffled] = of_others
        fewest = fewest_canvases([patterns, *searches.values()])
        controls = [c for size in self.sizes for c in self._controls(probe, patterns, size, fewest)]
        if not searches:
            controls = [replace(control, equal_choice=None) for control in controls]
        shuffled: dict[tuple[float, str], float] = {}
        if self.shuffled in searches:
            shuffled = {
                (control.size, control.name): control.compared
                for control in self._searched(probe, searches[self.shuffled], fewest)
            }
            # NaN for a class without a pattern of another canvas: the column stays.
            controls = [
                replace(c, shuffled=shuffled.get((c.size, c.name), math.nan)) for c in controls
            ]
        redrawn: dict[float, float] = {}
        if self.redrawn is not None:
            other = self._probe(subject, searches[self.redrawn])
            differences: dict[float, list[float]] = {}
            for control in self._searched(other, searches[self.redrawn], fewest):
                difference = control.compared - control.no_pattern
                differences.setdefault(control.size, []).append(difference)
            redrawn = {size: fmean(values) for size, values in differences.items()}
        complete = [control for control in controls if control.is_measured]
        return Outcome(
            metrics=self._metrics(complete, redrawn) | self._shuffled_metrics(shuffled),
            tables={"pattern_controls": [control.row for control in controls]},
            figures={"pattern_controls": chart([control.row for control in complete], redrawn)}
            if complete
            else {},
        )

    def _searched(
        self, probe: Probe, patterns: Patterns, fewest: Mapping[int, int]
    ) -> Iterator[ClassControls]:
        """The success rates of the patterns of a control search, where there are images."""
        for size in self.sizes:
            for control in self._controls(probe, patterns, size, fewest, draws=0):
                if control.is_measured:
                    yield control

    def _shuffled_metrics(self, shuffled: dict[tuple[float, str], float]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for size in self.sizes if shuffled else ():
            name = f"pattern_controls/{self.source}/{size:g}/{SHUFFLED}"
            rates = {key[1]: value for key, value in shuffled.items() if key[0] == size}
            metrics[name] = fmean(rates.values())
            metrics |= {class_metric(name, c): value for c, value in rates.items()}
        return metrics

    def _probe(self, subject: Subject, patterns: Patterns) -> Probe:
        images = subject.data.splits.test.spread(self.images)
        return Probe(subject, subject.first_network(patterns.explains), images)

    @staticmethod
    def _patterns(sources: Sources, name: str) -> Patterns:
        patterns = sources[name]
        assert isinstance(patterns, Patterns)
        return patterns

    def _controls(
        self,
        probe: Probe,
        patterns: Patterns,
        size: float,
        fewest: Mapping[int, int],
        draws: int | None = None,
    ) -> Iterator[ClassControls]:
        """The success rates of each class.

        Args:
            fewest: by class, the number of canvases of the search that has the fewest.
            draws: of random masks and other canvases; null for those of the evaluation.
        """
        count = self.draws if draws is None else draws
        candidates = candidates_of_size(self.source, patterns, size)
        searched = patterns.searched[probe.subject.data.splits.test.spread_indices(self.images)]
        scores = score_candidates(candidates, probe, searched)
        for of_class in by_class(scores, "lowest_loss"):
            candidate = of_class[0].candidate
            counted = images_outside(probe, candidate.label, searched)
            canvas = canvas_of(patterns, candidate)
            name = probe.subject.data.classes[candidate.label]
            if not counted.any():
                yield ClassControls(
                    size=size,
                    name=name,
                    pattern=math.nan,
                    equal_choice=math.nan,
                    no_pattern=math.nan,
                    random=[],
                    other=[],
                )
                continue
            rates = [
                success_rate(score.predictions.classes, candidate.label, counted)
                for score in of_class
            ]
            yield ClassControls(
                size=size,
                name=name,
                pattern=rates[0],
                equal_choice=expected_of_fewer(rates, fewest[candidate.label]),
                no_pattern=success_rate(probe.clean, candidate.label, counted),
                random=[
                    self._success(probe, with_random_mask(candidate, canvas, draw), counted)
                    for draw in range(count)
                ],
                other=[
                    self._success(probe, with_mask(candidate, candidate.mask, canvas), counted)
                    for canvas in other_canvases(patterns, candidate, count)
                ],
            )

    @staticmethod
    def _success(probe: Probe, candidate: Candidate, counted: Tensor) -> float:
        predictions = probe.predict(candidate.attach, candidate.label)
        return success_rate(predictions.classes, candidate.label, counted)

    def _metrics(
        self, controls: Sequence[ClassControls], redrawn: dict[float, float]
    ) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for size in self.sizes:
            name = f"pattern_controls/{self.source}/{size:g}"
            of_size = [control for control in controls if control.size == size]
            if not of_size:
                continue
            has_others = all(control.other for control in of_size)
            columns = [PATTERN, RANDOM, NONE]
            if has_others:
                columns.append(OTHER)
            if of_size[0].equal_choice is not None:
                columns.append(EQUAL_CHOICE)
            for column in columns:
                metrics[f"{name}/{column}"] = fmean(float(c.row[column]) for c in of_size)
            drawn = {RANDOM: [control.random for control in of_size]}
            if has_others:
                drawn[OTHER] = [control.other for control in of_size]
            for column, rates in drawn.items():
                means = [fmean(draws) for draws in zip(*rates, strict=True)]
                metrics[f"{name}/{column}/std"] = population_std(means)
            metrics[f"{name}/{GAIN}"] = fmean(control.gain for control in of_size)
            if size in redrawn:
                metrics[f"{name}/{REDRAWN}"] = redrawn[size]
            for control in of_size:
                metrics[class_metric(f"{name}/{PATTERN}", control.name)] = control.pattern
                metrics[class_metric(f"{name}/{GAIN}", control.name)] = control.gain
        return metrics
