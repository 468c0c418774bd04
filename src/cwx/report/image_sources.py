"""The images of a run by class: outputs of its methods, and real images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.explanations.images import Explanations
from cwx.explanations.margins import Margins
from cwx.explanations.patterns import MethodOutput, Patterns, Perturbations, Triggers
from cwx.explanations.serialisation import per_item_fields
from cwx.report.run import RunContents

# Title and meaning of each kind of real images (`cwx.data.samples`).
REAL = {
    "real": ("real images", "Clean test images."),
    "train": (
        "training images",
        "Random training images with their training labels, corrupted if the study corrupts them.",
    ),
    "mean": ("mean image", "The mean of all training images of the class."),
}
# Images of one source, and values of one image, that a page takes in.
MAX_IMAGES, MAX_PIXELS = 200_000, 50_000_000
_MEANINGS: dict[type[Any], str] = {
    Explanations: "Contrast stretched: the central 98 % of the values of a class fill the range "
    "from black to white, the same for all images of the class.",
    Patterns: "The canvas inside its mask, on grey; one image per canvas.",
    Triggers: "The smallest trigger of the class, on grey where its mask is transparent.",
    Perturbations: "The perturbation itself, its contrast stretched: the central 98 % of the "
    "values of a class fill the range from black to white.",
    Margins: "The image of the largest margin of its class: the logit of the class minus the "
    "highest other logit.",
}


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Images of one origin, rendered on demand since a study may have thousands.

    Attributes:
        key: the method's name, or the kind of real images.
        title: the display name.
        meaning: the explanation of one image for readers.
        labels: the class index of each image.
        shape: of each image, ``(C, H, W)``.
        render: the first images of a class ``[n, C, H, W]`` in 0-1, from its label and their
            number.
        details: a text per image, or none.
    """

    key: str
    title: str
    meaning: str
    labels: Sequence[int]
    shape: Sequence[int]
    render: Callable[[int, int], Tensor]
    details: Sequence[str] = ()

    @property
    def max_per_class(self) -> int:
        """The number of images of the largest class; 1 if there are no images."""
        return max((len(indices) for indices in self.indices_by_class.values()), default=1)

    @cached_property
    def indices_by_class(self) -> dict[int, list[int]]:
        """The indices of the images of each class."""
        by_class: dict[int, list[int]] = {}
        for index, label in enumerate(self.labels):
            by_class.setdefault(label, []).append(index)
        return by_class


def image_sources(run: RunContents) -> list[ImageSource]:
    """All image sources of a run; a damaged one becomes a read error of the run."""
    outputs = [
        run.attempt(f"the output of {name}", partial(_method_source, run, name, output))
        for name, output in run.method_outputs().items()
    ]
    samples = run.samples()
    real = [
        run.attempt(f"the sample {kind}", partial(_real_source, run, kind, samples[kind]))
        for kind in sorted(samples, key=_real_order)
    ]
    return [source for source in (*outputs, *real) if source is not None]


def _real_order(kind: str) -> int:
    return list(REAL).index(kind) if kind in REAL else len(REAL)


def _method_source(run: RunContents, name: str, output: MethodOutput) -> ImageSource:
    images = _images(output)
    labels = _checked_labels(run, output.labels, images)
    normalization = run.normalization(images.shape[1])
    details: list[str] = []
    if isinstance(output, Perturbations):
        details = [f"ε = {255 * e:.3g}/255" for e in output.epsilons.tolist()]
    elif isinstance(output, Margins):
        details = [f"margin {margin:.3g}" for margin in output.margins.tolist()]

    def render(label: int, count: int) -> Tensor:
        # All images of the class, as they share the range of the display.
        of_class = _of_class(output, label)
        if not bool(_images(of_class).isfinite().all()):
            run.read_errors.append(f"the output of {name} has pixels that are not finite numbers")
        return normalization.denormalize(of_class.for_display(normalization).images[:count])

    return ImageSource(
        key=name,
        title=run.method_titles.get(name, name),
        meaning=_MEANINGS[type(output)],
        labels=labels,
        shape=images.shape[1:],
        render=render,
        details=details,
    )


def _real_source(run: RunContents, kind: str, sample: ImageSet) -> ImageSource:
    if sample.images.dtype != torch.uint8 or sample.labels.is_floating_point():
        raise ValueError(f"images of {sample.images.dtype}, labels of {sample.labels.dtype}")
    title, meaning = REAL.get(kind, (kind, ""))
    return ImageSource(
        key=kind,
        title=title,
        meaning=meaning,
        labels=_checked_labels(run, sample.labels, sample.images[:]),
        shape=sample.images.shape[1:],
        render=lambda label, count: sample.images[sample.labels == label][:count].float() / 255,
    )


def _checked_labels(run: RunContents, labels: Tensor, images: Tensor) -> list[int]:
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ValueError(f"images {list(images.shape)} have labels {list(labels.shape)}")
    if 0 in images.shape:
        raise ValueError(f"there are no images: the shape is {list(images.shape)}")
    if len(labels) > MAX_IMAGES or images[0].numel() > MAX_PIXELS:
        raise ValueError(f"images {list(images.shape)} are too many or too large for a page")
    classes = len(run.classes)
    if classes and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        low, high = int(labels.min()), int(labels.max())
        run.read_errors.append(f"labels of images lie in {low}-{high}, classes in 0-{classes - 1}")
    return [int(label) for label in labels.tolist()]


def _images(output: MethodOutput) -> Tensor:
    """The tensor ``[n, C, H, W]`` of the output."""
    tensors = (getattr(output, field.name) for field in fields(output))
    return next(t for t in tensors if isinstance(t, Tensor) and t.ndim == 4)


def _of_class(output: MethodOutput, label: int) -> MethodOutput:
    """The output of one class, in float32."""
    items = output.labels == label
    parts = {name: getattr(output, name) for name in per_item_fields(output)}
    chosen = {
        name: part[items].float() if part.is_floating_point() else part[items]
        for name, part in parts.items()
        if part is not None
    }
    of_class: MethodOutput = replace(output, **chosen)
    return of_class
