"""Where a network looks before and after a pattern is there (ISCP, Appendix F, Figure 12; I21)."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.patterns.selection import Candidate, best, entries, of_size
from cwx.explanations.drawing import heat, sheet
from cwx.explanations.patterns import Patterns
from cwx.functional.mask_search import pixels
from cwx.networks.gradcam import attention_of
from cwx.networks.layers import attended_layer
from cwx.training.plan import Plan
from cwx.training.subject import Subject

SETTING = "evaluation.attention"


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What a class's pattern does to attention.

    Attributes:
        candidate: the pattern.
        images: unit ``[n, C, H, W]``, of other classes; `carrying`, the same with the pattern.
        before, after: Grad-CAM maps of the class on each ``[n, H, W]``.
    """

    candidate: Candidate
    images: Tensor
    carrying: Tensor
    before: Tensor
    after: Tensor


class Attention:
    """The share of Grad-CAM attention for a class that lies within its pattern.

    ``attention/<source>/before`` and ``/after`` are means over classes of the share without and
    with the class's best pattern, on images of other classes; ``/by_area`` is the share of the
    image that the pattern covers: where attention is spread evenly, all are the same. A map that
    is 0 everywhere has no shares and is left out; the table ``attention``, a row a class, counts
    them as ``empty_before`` and ``empty_after``. The figure ``attention`` shows an image a class.

    Args:
        source: the method whose patterns they are.
        size: their share of the image's pixels in 0-1.
        images: how many test images a class, evenly spaced among those not searched on.
        layer: as of `cwx.methods.gradcam`.

    Raises:
        ValueError: `images` is below 1.
    """

    def __init__(self, *, source: str, size: float, images: int, layer: str | None) -> None:
        if images < 1:
            raise ValueError(f"{SETTING}.images is {images}: give 1 or more")
        self.source, self.size, self.images, self.layer = source, size, images, layer

    def check(self, plan: Plan) -> None:
        pixels(self.size, *plan.data.image_shape[1:])
        fit = [name for name in plan.methods if plan.leaves.get(name) is Patterns]
        if self.source not in fit:
            choices = f"one of {', '.join(fit)}" if fit else "a mask search, such as method=[iscp]"
            raise ValueError(
                f"{SETTING}.source is {self.source!r}, of which this study makes no patterns: set "
                f"it to {choices}, or leave attention out of evaluation=[…]"
            )
        if network := plan.untrained(self.source):
            attended_layer(network, plan.data.image_shape, self.layer, f"{SETTING}.layer")

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        found = sources[self.source]
        assert isinstance(found, Patterns)
        network = subject.explained(found.explains).to(subject.device)
        shape, setting = subject.data.image_shape, f"{SETTING}.layer"
        layer = network.get_submodule(attended_layer(network, shape, self.layer, setting))
        shifts = [
            self._shift(candidate, subject, found.searched, network, layer)
            for candidate in _best(self.source, found, self.size, subject, network)
        ]
        rows = [_row(shift, subject.data.classes) for shift in shifts]
        return Outcome(
            metrics=_metrics(self.source, rows),
            tables={"attention": rows},
            figures={"attention": _figure(shifts, subject.data.classes)},
        )

    def _shift(
        self,
        candidate: Candidate,
        subject: Subject,
        searched: Tensor,
        network: nn.Module,
        layer: nn.Module,
    ) -> Shift:
        data, test = subject.data, subject.data.splits.test
        others = test.labels != candidate.label
        unseen = others & ~searched
        shown = test.at(unseen if unseen.any() else others).spread(self.images)
        images = shown.images.float() / 255
        carrying = candidate.attach(images)
        labels = torch.full((len(images),), candidate.label)
        before, after = (
            attention_of(
                network, layer, data.normalization.normalize(unit), labels, data.batch_size
            )
            for unit in (images, carrying)
        )
        return Shift(
            candidate=candidate, images=images, carrying=carrying, before=before, after=after
        )


def _best(
    name: str, found: Patterns, size: float, subject: Subject, network: nn.Module
) -> list[Candidate]:
    """The best pattern of each class, which is decided on what was searched on alone."""
    searched = found.searched if found.searched.any() else ~found.searched
    probe = Probe(subject, network, subject.data.splits.test.at(searched))
    entered = entries(of_size(name, found, size), probe, found.searched[searched])
    return [entry.candidate for entry in best(entered)]


def shares_within(maps: Tensor, mask: Tensor) -> Tensor:
    """The share of each map's sum that lies within a mask, ``[n]``; NaN where it is 0 everywhere.

    Args:
        maps: ``[n, H, W]``, 0 or more.
        mask: boolean mask ``[H, W]``.
    """
    return maps[:, mask].sum(1) / maps.sum((1, 2))


def _row(shift: Shift, classes: Sequence[str]) -> Row:
    mask = shift.candidate.mask
    assert mask is not None
    before, after = (shares_within(maps, mask) for maps in (shift.before, shift.after))
    return {
        "class": classes[shift.candidate.label],
        "canvas": shift.candidate.place,
        "images": len(shift.images),
        "before": _mean(before),
        "after": _mean(after),
        "by_area": mask.double().mean().item(),
        "empty_before": int(before.isnan().sum()),
        "empty_after": int(after.isnan().sum()),
    }


def _mean(fractions: Tensor) -> float | str:
    """Without NaN; nothing if there is nothing else."""
    there = fractions[~fractions.isnan()]
    return there.double().mean().item() if len(there) else ""


def _metrics(source: str, rows: Sequence[Row]) -> dict[str, float]:
    values = {
        name: [float(row[name]) for row in rows if row[name] != ""]
        for name in ("before", "after", "by_area")
    }
    return {f"attention/{source}/{name}": fmean(found) for name, found in values.items() if found}


def _figure(shifts: Sequence[Shift], classes: Sequence[str]) -> Figure:
    """An image for each class, its attention, and both once it carries the pattern."""
    # Another for each class: their first are mostly the same.
    places = [shift.candidate.label % len(shift.images) for shift in shifts]
    columns: dict[str, list[Tensor]] = {
        "image": [],
        "attention": [],
        "with pattern": [],
        "attention then": [],
    }
    for shift, place in zip(shifts, places, strict=True):
        image, carrying = shift.images[place], shift.carrying[place]
        shown = (image, heat(image, shift.before[place]))
        then = (carrying, heat(carrying, shift.after[place]))
        for column, tile in zip(columns.values(), (*shown, *then), strict=True):
            column.append(tile)
    labels = torch.tensor([shift.candidate.label for shift in shifts])
    return sheet(
        {title: torch.stack(images) for title, images in columns.items()},
        dict.fromkeys(columns, labels),
        classes,
    )
