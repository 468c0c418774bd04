"""Grad-CAM attention before and after a pattern is attached (ISCP, Appendix F, Figure 12)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.patterns.selection import (
    Candidate,
    best_by_class,
    candidates_of_size,
    score_candidates,
)
from cwx.explanations.drawing import heat, sheet
from cwx.explanations.patterns import Patterns
from cwx.functional.mask_search import pixels
from cwx.networks.gradcam import attention_maps
from cwx.networks.layers import attention_layer
from cwx.training.plan import Plan
from cwx.training.subject import Subject

SETTING = "evaluation.attention"


@dataclass(frozen=True, kw_only=True)
class AttentionShift:
    """Attention maps of a class before and after its pattern is attached.

    Attributes:
        candidate: the pattern.
        images: unit images ``[n, C, H, W]`` of other classes.
        with_pattern: the same images with the pattern.
        before, after: Grad-CAM maps of the class on each ``[n, H, W]``.
    """

    candidate: Candidate
    images: Tensor
    with_pattern: Tensor
    before: Tensor
    after: Tensor


class Attention:
    """The fraction of Grad-CAM attention for a class that lies within its pattern.

    ``attention/<source>/before`` and ``…/after`` are means over classes of the fraction without
    and with the class's pattern of lowest loss on the images of the search, on images of other
    classes outside the search; a class without such images has none of these values.
    ``…/by_area`` is the fraction of the image that the pattern covers: uniform attention
    gives this value for both. A map that is 0 everywhere has no fraction: its image is left out
    of both, and a class without others of all three; the table ``attention``, a row per class,
    counts such maps as ``empty_before`` and ``empty_after``.
    The figure ``attention`` shows an image per class.

    Args:
        source: the method of the patterns.
        size: their fraction of the image's pixels in 0-1.
        images: number of test images per class, evenly spaced among those outside the search.
        layer: as in `cwx.methods.gradcam`.

    Raises:
        ValueError: `images` is below 1.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        source: str,
        size: Annotated[float, "> 0, <= 1"],
        images: Annotated[int, ">= 1"],
        layer: str | None,
    ) -> None:
        if images < 1:
            raise ValueError(f"{SETTING}.images is {images}: give 1 or more")
        self.source, self.size, self.images, self.layer = source, size, images, layer

    def check(self, plan: Plan) -> None:
        pixels(self.size, *plan.data.image_shape[1:])
        fit = [name for name in plan.methods if plan.leaves.get(name) is Patterns]
        if self.source not in fit:
            choices = f"one of {', '.join(fit)}" if fit else "a mask search, such as method=[iscp]"
            raise ValueError(
                f"{SETTING}.source is {self.source!r}, but this study has no such method that "
                f"makes patterns: set it to {choices}, or leave attention out of evaluation=[…]"
            )
        plan.require_images_outside(f"{SETTING}.source", self.source)
        if network := plan.untrained(self.source):
            attention_layer(network, plan.data.image_shape, self.layer, f"{SETTING}.layer")

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        patterns = sources[self.source]
        assert isinstance(patterns, Patterns)
        network = subject.first_network(patterns.explains)
        shape, setting = subject.data.image_shape, f"{SETTING}.layer"
        layer = network.get_submodule(attention_layer(network, shape, self.layer, setting))
        best = _best(self.source, patterns, self.size, subject, network)

        def of_class(candidate: Candidate) -> tuple[Row, dict[str, Tensor] | None]:
            images = self._images(candidate, subject, patterns.searched)
            if not len(images):
                return _empty_row(candidate, subject.data.classes), None
            shift = self._shift(candidate, subject, images, network, layer)
            return _row(shift, subject.data.classes), _pictures(shift)

        rows, by_class = zip(*subject.ranks.map(of_class, best), strict=True)
        labels = [c.label for c, pictures in zip(best, by_class, strict=True) if pictures]
        pictures = [pictures for pictures in by_class if pictures]
        return Outcome(
            metrics=_metrics(self.source, rows),
            tables={"attention": list(rows)},
            figures={"attention": _figure(pictures, torch.tensor(labels), subject.data.classes)}
            if pictures
            else {},
        )

    def _images(self, candidate: Candidate, subject: Subject, searched: Tensor) -> Tensor:
        """Byte images ``[n, C, H, W]`` of other classes outside the search, of which there may be
        none.
        """
        test = subject.data.splits.test
        outside = test.at((test.labels != candidate.label) & ~searched)
        return outside.spread(self.images).images[:] if len(outside) else outside.images[:]

    def _shift(
        self,
        candidate: Candidate,
        subject: Subject,
        byte_images: Tensor,
        network: nn.Module,
        layer: nn.Module,
    ) -> AttentionShift:
        data, images = subject.data, byte_images.float() / 255
        with_pattern = candidate.attach(images)
        labels = torch.full((len(images),), candidate.label)
        before, after = (
            attention_maps(
                network, layer, data.normalization.normalize(unit), labels, data.batch_size
            )
            for unit in (images, with_pattern)
        )
        return AttentionShift(
            candidate=candidate,
            images=images,
            with_pattern=with_pattern,
            before=before,
            after=after,
        )


def _best(
    source: str, patterns: Patterns, size: float, subject: Subject, network: nn.Module
) -> list[Candidate]:
    """The best pattern of each class by its loss on the images of the search."""
    searched = patterns.searched if patterns.searched.any() else ~patterns.searched
    probe = Probe(subject, network, subject.data.splits.test.at(searched))
    candidates = candidates_of_size(source, patterns, size)
    scores = score_candidates(candidates, probe, patterns.searched[searched])
    return [score.candidate for score in best_by_class(scores, "lowest_loss")]


def fractions_within(maps: Tensor, mask: Tensor) -> Tensor:
    """The fraction of each map's sum that lies within a mask, ``[n]``; NaN if the sum is 0.

    Args:
        maps: ``[n, H, W]``, 0 or more.
        mask: boolean mask ``[H, W]``.
    """
    return maps[:, mask].sum(1) / maps.sum((1, 2))


def _row(shift: AttentionShift, classes: Sequence[str]) -> Row:
    mask = shift.candidate.mask
    assert mask is not None
    before, after = (fractions_within(maps, mask) for maps in (shift.before, shift.after))
    # Both are of the same images: those with attention before and after.
    compared = ~(before.isnan() | after.isnan())
    return {
        "class": classes[shift.candidate.label],
        "canvas": shift.candidate.canvas,
        "images": len(shift.images),
        "before": _mean(before[compared]),
        "after": _mean(after[compared]),
        "by_area": mask.double().mean().item(),
        "empty_before": int(before.isnan().sum()),
        "empty_after": int(after.isnan().sum()),
    }


def _empty_row(candidate: Candidate, classes: Sequence[str]) -> Row:
    """The row of a class without images."""
    values = dict.fromkeys(("before", "after", "by_area", "empty_before", "empty_after"), "")
    name = classes[candidate.label]
    return {"class": name, "canvas": candidate.canvas, "images": 0, **values}


def _mean(fractions: Tensor) -> float | str:
    """The mean; empty without any."""
    return fractions.double().mean().item() if len(fractions) else ""


def _metrics(source: str, rows: Sequence[Row]) -> dict[str, float]:
    compared = [row for row in rows if row["before"] != ""]
    return {
        f"attention/{source}/{name}": fmean(float(row[name]) for row in compared)
        for name in (("before", "after", "by_area") if compared else ())
    }


def _pictures(shift: AttentionShift) -> dict[str, Tensor]:
    """An image, attention, the image with the pattern, attention on it: ``[C, H, W]`` by title."""
    # Another image for each class: the first ones are mostly the same for all classes.
    index = shift.candidate.label % len(shift.images)
    image, with_pattern = shift.images[index], shift.with_pattern[index]
    return {
        "image": image,
        "attention": heat(image, shift.before[index]),
        "with pattern": with_pattern,
        "attention then": heat(with_pattern, shift.after[index]),
    }


def _figure(
    pictures: Sequence[Mapping[str, Tensor]], labels: Tensor, classes: Sequence[str]
) -> Figure:
    """A row per class, the pictures of `_pictures`."""
    columns = {title: torch.stack([row[title] for row in pictures]) for title in pictures[0]}
    return sheet(columns, dict.fromkeys(columns, labels), classes)
