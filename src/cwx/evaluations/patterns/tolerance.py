"""How exactly a pattern has to be applied: shifts, noise and compression (ISCP)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Annotated

import torch
from torch import Tensor

from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.patterns.distortions import Noise, compress, shift
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.patterns.selection import (
    best_by_class,
    candidates_of_size,
    canvas_of,
    score_candidates,
)
from cwx.evaluations.patterns.set_power import images_outside, success_rate
from cwx.evaluations.patterns.tolerance_figure import tolerance_chart
from cwx.explanations.patterns import (
    Attach,
    BinaryPatterns,
    MethodOutput,
    Patterns,
    Perturbations,
    Triggers,
)
from cwx.functional.mask_search import pixels
from cwx.functional.rng import stream
from cwx.functional.spread import population_std
from cwx.storage.metric_names import class_metric
from cwx.training.plan import Plan
from cwx.training.subject import Subject

_SETTING = "evaluation.pattern_tolerance"
_FORMS = (Patterns, Perturbations, Triggers)
# Shifts go in these directions, and the success is the mean over them.
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1))

Distort = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class _Overlay:
    """A pattern, perturbation or trigger of a class that can be shifted.

    Attributes:
        label: the class.
        shifted: overlays it, moved down and right by so many pixels.
    """

    label: int
    shifted: Callable[[int, int], Attach]


class PatternTolerance:
    """How often a pattern still sends images to its class if it is applied inexactly.

    The success rate, on test images of other classes outside the search, of the pattern of lowest
    loss (of perturbations that of the largest radius, of triggers the only one):

    - ``pattern_tolerance/<source>/none``: as it was found, the mean over classes; ``…/std`` over
      classes (ddof 0); ``…/class/<class>`` that of a class.
    - ``…/shift/<pixels>``: moved by so many pixels, the mean over four directions. What leaves the
      image is lost.
    - ``…/noise/<std>``: with normal noise of this standard deviation, of 255, on the whole image.
    - ``…/jpeg/<quality>``: after JPEG compression of the whole image.
    - ``…/without`` beside each: the same images without the pattern, distorted alike, that the
      network classifies as the class. A pattern that is no better has no effect.

    A pattern that fails after a shift by a pixel is tied to exact pixels; one that survives is a
    feature. A class without test images outside the search has empty cells and is in no mean.

    Args:
        source: the method of the patterns.
        size: of patterns, the fraction of the image's pixels in 0-1.
        images: at most so many test images, evenly spaced; null for all.
        shifts: in pixels.
        noise: standard deviations, of 255.
        jpeg: qualities.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        source: str,
        size: Annotated[float, "> 0, <= 1"],
        images: Annotated[int, ">= 1"] | None,
        shifts: Annotated[Sequence[Annotated[int, ">= 1"]], "distinct"],
        noise: Annotated[Sequence[Annotated[float, "> 0, <= 255"]], "distinct"],
        jpeg: Annotated[Sequence[Annotated[int, ">= 1, <= 95"]], "distinct"],
    ) -> None:
        self.source, self.size, self.images = source, size, images
        self.shifts, self.noise, self.jpeg = list(shifts), list(noise), list(jpeg)

    def check(self, plan: Plan) -> None:
        form = plan.leaves.get(self.source)
        if form not in _FORMS:
            raise ValueError(
                f"{_SETTING}.source is {self.source!r}, which is no method of this study that "
                "leaves patterns, perturbations or triggers: choose method=[…,"
                f"{self.source}], or another"
            )
        plan.require_images_outside(f"{_SETTING}.source", self.source)
        height, width = plan.data.image_shape[1:]
        if form is Patterns:
            pixels(self.size, height, width)
        if too_far := [pixels for pixels in self.shifts if pixels >= min(height, width)]:
            raise ValueError(
                f"{_SETTING}.shifts has {too_far[0]}, and images have {height} x {width} pixels: "
                "give smaller shifts"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        output = sources[self.source]
        assert isinstance(output, _FORMS)
        test = subject.data.splits.test
        indices = test.spread_indices(self.images)
        probe = Probe(subject, subject.first_network(output.explains), test.at(indices))
        searched = output.searched[indices]
        overlays = list(_overlays(output, self.source, self.size, probe, searched))
        compressed = {
            quality: probe.predict_classes(partial(compress, quality=quality))
            for quality in self.jpeg
        }
        rows: list[Row] = [
            {**row, "class": subject.data.classes[overlay.label]}
            for overlay in overlays
            for row in self._rows(probe, overlay, searched, compressed)
        ]
        # Of a class without images outside the search the cells are empty.
        complete = [row for row in rows if row["success"] != ""]
        return Outcome(
            metrics=self._metrics(complete),
            tables={"pattern_tolerance": rows},
            figures={"pattern_tolerance": tolerance_chart(complete)} if complete else {},
        )

    def _rows(
        self,
        probe: Probe,
        overlay: _Overlay,
        searched: Tensor,
        compressed: Mapping[int, Tensor],
    ) -> Iterator[Row]:
        """The success of a class's pattern for each distortion and strength.

        Args:
            compressed: by quality, the predicted classes of the images without a pattern, which
                are the same for all patterns.
        """
        counted = images_outside(probe, overlay.label, searched)
        if not counted.any():
            yield from (_row(kind, strength, "", "") for kind, strength in self._strengths())
            return

        def success(attach: Attach) -> float:
            predictions = probe.predict(attach, overlay.label).classes
            return success_rate(predictions, overlay.label, counted)

        exact = overlay.shifted(0, 0)
        alone = success_rate(probe.clean, overlay.label, counted)
        yield _row("none", 0, success(exact), alone)
        for pixels_moved in self.shifts:
            moved = [
                success(overlay.shifted(pixels_moved * rows, pixels_moved * columns))
                for rows, columns in _DIRECTIONS
            ]
            yield _row("shift", pixels_moved, fmean(moved), alone)
        for std in self.noise:
            # Each class has noise of its own, so that the images without a pattern differ.
            generator = stream(overlay.label, round(1000 * std))
            with_pattern, without = Noise(std, generator, before=exact), Noise(std, generator)
            yield _row("noise", std, success(with_pattern), success(without))
        for quality in self.jpeg:
            jpeg = _then(exact, partial(compress, quality=quality))
            unchanged = success_rate(compressed[quality], overlay.label, counted)
            yield _row("jpeg", quality, success(jpeg), unchanged)

    def _strengths(self) -> list[tuple[str, float]]:
        """The distortions and their strengths, in the order of the rows of a class."""
        by_kind: dict[str, Sequence[float]] = {
            "none": [0],
            "shift": self.shifts,
            "noise": self.noise,
            "jpeg": self.jpeg,
        }
        return [(kind, strength) for kind, values in by_kind.items() for strength in values]

    def _metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        groups: dict[str, list[Row]] = {}
        for row in rows:
            strength = "" if row["distortion"] == "none" else f"/{float(row['strength']):g}"
            groups.setdefault(f"{row['distortion']}{strength}", []).append(row)
        metrics: dict[str, float] = {}
        for group, of_group in groups.items():
            name = f"pattern_tolerance/{self.source}/{group}"
            values = [float(row["success"]) for row in of_group]
            metrics[name] = fmean(values)
            metrics[f"{name}/std"] = population_std(values)
            metrics[f"{name}/without"] = fmean(float(row["without"]) for row in of_group)
            for row, value in zip(of_group, values, strict=True):
                metrics[class_metric(name, str(row["class"]))] = value
        return metrics


def _then(attach: Attach, distort: Distort) -> Distort:
    return lambda images: distort(attach(images))


def _row(distortion: str, strength: float, success: float | str, without: float | str) -> Row:
    return {
        "distortion": distortion,
        "strength": strength,
        "class": "",
        "success": success,
        "without": without,
    }


def _overlays(
    output: MethodOutput, source: str, size: float, probe: Probe, searched: Tensor
) -> Iterator[_Overlay]:
    """The pattern that stands for each class.

    Args:
        searched: boolean mask, the probe's images that the search used.
    """
    if isinstance(output, Patterns):
        candidates = candidates_of_size(source, output, size)
        for score in best_by_class(score_candidates(candidates, probe, searched), "lowest_loss"):
            candidate = score.candidate
            assert candidate.mask is not None
            shifted = _shifted_pattern(candidate.mask, canvas_of(output, candidate))
            yield _Overlay(label=candidate.label, shifted=shifted)
    elif isinstance(output, Triggers):
        for index, label in enumerate(output.labels.tolist()):
            yield _Overlay(label=label, shifted=_shifted_trigger(output, index))
    elif isinstance(output, Perturbations):
        for label in output.labels.unique().tolist():
            shifted = _shifted_perturbation(output, output.largest(label))
            yield _Overlay(label=label, shifted=shifted)


def _shifted_pattern(mask: Tensor, canvas: Tensor) -> Callable[[int, int], Attach]:
    def shifted(rows: int, columns: int) -> Attach:
        return BinaryPatterns(
            masks=shift(mask[None], rows, columns),
            canvases=shift(canvas[None], rows, columns),
            tied=torch.zeros(1),
        ).attach(0)

    return shifted


def _shifted_trigger(triggers: Triggers, index: int) -> Callable[[int, int], Attach]:
    def shifted(rows: int, columns: int) -> Attach:
        return replace(
            triggers,
            masks=shift(triggers.masks, rows, columns),
            patterns=shift(triggers.patterns, rows, columns),
        ).attach(index)

    return shifted


def _shifted_perturbation(perturbations: Perturbations, index: int) -> Callable[[int, int], Attach]:
    def shifted(rows: int, columns: int) -> Attach:
        moved = replace(perturbations, deltas=shift(perturbations.deltas, rows, columns))
        return moved.attach(index)

    return shifted
