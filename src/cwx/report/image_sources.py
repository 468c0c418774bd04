"""What a run can show by class: what its methods left, and real images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from cwx.explanations.images import Explanations
from cwx.explanations.patterns import MethodOutput, Patterns, Perturbations
from cwx.report.run import Run

# Title and meaning of what `cwx.data.samples` keeps.
REAL = {
    "real": ("real images", "Test images, never corrupted."),
    "train": (
        "training images",
        "Training images drawn at random, under the labels they are trained on with.",
    ),
    "mean": ("mean image", "The mean of all training images of the class."),
}
_MEANINGS: dict[type[Any], str] = {
    Explanations: "Each image rescaled to fill the range from black to white.",
    Patterns: "The canvas as far as its mask is open, on grey; one canvas a picture.",
    Perturbations: "The perturbation alone, its range stretched from black to white.",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images of one origin, made when they are asked for: a study may leave thousands.

    Attributes:
        key: the method's name, or the kind of real images.
        title: for people.
        meaning: what one picture is, for people.
        labels: the class of each.
        shape: of each, ``(C, H, W)``.
        show: the unit image ``[C, H, W]`` at a place.
        details: what sets each picture apart, if anything.
    """

    key: str
    title: str
    meaning: str
    labels: Sequence[int]
    shape: Sequence[int]
    show: Callable[[int], Tensor]
    details: Sequence[str] = ()

    @property
    def fullest(self) -> int:
        """Pictures of the class that has most; 1 if there are none."""
        return max((len(places) for places in self.by_class().values()), default=1)

    def by_class(self) -> dict[int, list[int]]:
        """Where the pictures of each class lie."""
        places: dict[int, list[int]] = {}
        for place, label in enumerate(self.labels):
            places.setdefault(label, []).append(place)
        return places


def sources(run: Run) -> list[Source]:
    """All that a run can show by class; what is damaged becomes a fault of the run."""
    found = [
        run.tried(f"what {name} left", partial(_left, run, name, left))
        for name, left in run.found().items()
    ]
    samples = run.samples()
    real = [
        run.tried(f"the sample {kind}", partial(_real, kind, samples[kind]))
        for kind in sorted(samples, key=_after_known)
    ]
    return [source for source in (*found, *real) if source is not None]


def _after_known(kind: str) -> int:
    return list(REAL).index(kind) if kind in REAL else len(REAL)


def _left(run: Run, name: str, left: MethodOutput) -> Source:
    whole = _pixels(left)
    labels = _labels(left.labels, whole)
    normalization = run.normalization(whole.shape[1])
    details: list[str] = []
    if isinstance(left, Perturbations):
        details = [f"ε = {255 * e:.3g}/255" for e in left.epsilons.tolist()]

    def show(place: int) -> Tensor:
        shown = _at(left, place).shown(normalization)
        return normalization.denormalize(shown.images.float())[0]

    return Source(
        key=name,
        title=run.titles.get(name, name),
        meaning=_MEANINGS[type(left)],
        labels=labels,
        shape=whole.shape[1:],
        show=show,
        details=details,
    )


def _real(kind: str, left: Explanations) -> Source:
    title, meaning = REAL.get(kind, (kind, ""))
    return Source(
        key=kind,
        title=title,
        meaning=meaning,
        labels=_labels(left.labels, left.images),
        shape=left.images.shape[1:],
        show=lambda place: left.images[place].float() / 255,
    )


def _labels(labels: Tensor, images: Tensor) -> list[int]:
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ValueError(f"images {list(images.shape)} have labels {list(labels.shape)}")
    return [int(label) for label in labels.tolist()]


def _pixels(left: MethodOutput) -> Tensor:
    if isinstance(left, Explanations):
        return left.images
    return left.canvases if isinstance(left, Patterns) else left.deltas


def _at(left: MethodOutput, place: int) -> MethodOutput:
    """The one at `place`, alone."""
    one, labels = slice(place, place + 1), left.labels[place : place + 1]
    if isinstance(left, Explanations):
        return replace(left, images=left.images[one], labels=labels)
    if isinstance(left, Patterns):
        return replace(left, masks=left.masks[one], canvases=left.canvases[one], labels=labels)
    return replace(left, deltas=left.deltas[one], labels=labels)
