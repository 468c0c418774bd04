"""Fits the work of `experiment=inspect` into a given time."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Passes over the images of a search (method.iscp.passes), and sizes of patterns.
_PASSES, _SIZES = 5, 3
# Steps of a universal perturbation, in batches of method.universal.batch_size: few images need more
# passes to reach the radius.
_UNIVERSAL_STEPS, _UNIVERSAL_BATCH = 44, 32
# The batches of a study are faster than those that measured one pass: 0.4 to 0.75 times as long
# in three studies.
_SPEED = 0.7
# A search uses at most this fraction of the images: the others measure its patterns.
_MOST_SEARCHED = 0.5
# A forward and a backward pass cost as much as three forward passes.
_GRADIENT = 3


@dataclass(frozen=True, kw_only=True)
class Effort:
    """An amount of work.

    Attributes:
        classes: the largest number of classes to explain.
        canvases: canvases of a class.
        searched: images of a search.
        images: test images on which patterns are measured.
        draws: random masks of a class and size.
        iterations: of activation maximisation; 0 leaves it out.
        trigger: steps of trigger inversion; 0 leaves it, universal perturbations and the verdict
            out.
        usual_ways, neurons: whether these parts are done.
        controls: whether the control searches are done, on re-drawn weights and on canvases of
            other classes.
    """

    classes: int
    canvases: int
    searched: int
    images: int
    draws: int
    iterations: int
    trigger: int
    usual_ways: bool = True
    neurons: bool = True
    controls: bool = True


_EFFORTS = (
    Effort(
        classes=100, canvases=5, searched=1000, images=2000, draws=5,
        iterations=3000, trigger=400,
    ),
    Effort(
        classes=100, canvases=3, searched=400, images=1000, draws=3,
        iterations=1000, trigger=400,
    ),
    Effort(
        classes=50, canvases=3, searched=200, images=500, draws=3,
        iterations=500, trigger=400,
    ),
    Effort(
        classes=20, canvases=2, searched=150, images=300, draws=3,
        iterations=300, trigger=300,
    ),
    Effort(
        classes=10, canvases=1, searched=100, images=200, draws=2, iterations=200, trigger=200,
        usual_ways=False,
    ),
    Effort(
        classes=5, canvases=1, searched=80, images=100, draws=2, iterations=0, trigger=200,
        usual_ways=False,
    ),
    Effort(
        classes=3, canvases=1, searched=60, images=60, draws=1, iterations=0, trigger=0,
        usual_ways=False, neurons=False, controls=False,
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class InspectionBudget:
    """The settings of an inspection that fit a time.

    Attributes:
        settings: of the study, by key.
        minutes: the estimated time.
        left_out: what is not done, in sentences.
    """

    settings: Mapping[str, Any]
    minutes: float
    left_out: Sequence[str]


def budget(
    minutes: float,
    *,
    seconds: float,
    present: Sequence[str],
    classes: int,
    images: int,
    side: int,
    unsupported: Collection[str] = (),
) -> InspectionBudget:
    """The largest effort whose estimate is within `minutes`, or the smallest effort.

    Args:
        seconds: of the forward pass of one image.
        present: names of the classes with images: an index would name another class if classes are
            named by numbers.
        classes: the number of classes of the network.
        images: test images in all.
        side: of the images, in pixels.
        unsupported: methods and evaluations that the network does not allow.
    """
    # Reading and two passes take at most a quarter of the time.
    total = min(images, max(200, int(minutes * 60 / 4 / 2 / seconds)))
    estimates = [
        (effort, _passes(effort, len(present), classes, total) * _SPEED * seconds / 60)
        for effort in _EFFORTS
    ]
    effort, estimate = next((pair for pair in estimates if pair[1] <= minutes), estimates[-1])
    chosen = _spread(present, effort.classes)
    all_classes = len(chosen) == classes
    iterations = effort.iterations if classes <= 100 else 0
    methods = [
        "iscp",
        *_controls(effort, len(chosen)),
        *(["universal"] if effort.trigger else []),
        "gradcam",
        *(["activation"] if iterations else []),
        *(["trigger_inversion"] if effort.trigger else []),
    ]
    evaluations = [
        *(["verdict"] if effort.trigger else []),
        "accuracy",
        *(["usual_ways"] if effort.usual_ways else []),
        "confusion",
        "predictive_power",
        "pattern_controls",
        "attention",
        *(["neurons"] if effort.neurons else []),
        *(["gallery"] if iterations else []),
    ]
    methods = [name for name in methods if name not in unsupported]
    evaluations = [name for name in evaluations if name not in unsupported]
    # Others measure what the search has made.
    searched = min(_MOST_SEARCHED, effort.searched / total)
    settings: dict[str, Any] = {
        "method": methods,
        "evaluation": evaluations,
        "data.source.images": None if total == images else total,
        "method.iscp.canvases": effort.canvases,
        "method.iscp.searched": searched,
        "evaluation.predictive_power.images": effort.images,
        "evaluation.pattern_controls.images": effort.images,
        "evaluation.pattern_controls.draws": effort.draws,
    }
    searches = [name for name in methods if name != "activation"]
    if not all_classes:
        settings |= {f"method.{name}.classes": chosen for name in searches}
    if iterations:
        settings |= {
            "method.activation.iterations": iterations,
            "method.activation.checkpoint_every": max(1, iterations // 2),
        }
    if effort.trigger:
        settings |= {
            "method.trigger_inversion.iterations": effort.trigger,
            "method.universal.searched": _universal_images(effort, total) / total,
            "method.universal.passes": _universal_passes(_universal_images(effort, total)),
        }
    if "neurons" in evaluations:
        settings |= {
            "evaluation.neurons.sheet.occluder": max(3, side // 7),
            "evaluation.neurons.sheet.stride": max(2, side // 14),
        }
    return InspectionBudget(
        settings=settings,
        minutes=estimate,
        left_out=list(_left_out(effort, len(chosen), len(present), total, images, iterations)),
    )


def _passes(effort: Effort, present: int, classes: int, images: int) -> float:
    """Forward passes of one image."""
    explained = min(present, effort.classes)
    targets = classes if explained == classes else explained
    searched = min(effort.searched, int(_MOST_SEARCHED * images))
    measured = min(effort.images, images)
    perturbed = _universal_images(effort, images)
    search = searched * _PASSES * _GRADIENT
    positions = 14 * 14
    parts = [
        3 * images,
        # About twenty ways on 512 images.
        20 * min(512, images) if effort.usual_ways else 0,
        explained * effort.canvases * search,
        explained * search * len(_controls(effort, explained)),
        targets * perturbed * _universal_passes(perturbed) * _GRADIENT if effort.trigger else 0,
        classes * effort.iterations * _GRADIENT if classes <= 100 else 0,
        # Power and controls: every canvas, random masks, Grad-CAM's regions.
        measured * explained * _SIZES * (2 * effort.canvases + effort.draws + 2),
        # The loss of every canvas on the images of the search.
        min(searched, measured) * explained * _SIZES * (2 * effort.canvases + 2),
        explained * 8 * 2 * _GRADIENT,
        # Batches of 16 images, then measurements on 200 images.
        targets * effort.trigger * (16 * _GRADIENT + 200 / 40),
        images + 25 * positions if effort.neurons else 0,
    ]
    return float(sum(parts))


def _universal_images(effort: Effort, images: int) -> int:
    """Of the search for universal perturbations; the others measure them."""
    return max(1, min(effort.searched, images // 2))


def _universal_passes(images: int) -> int:
    return math.ceil(_UNIVERSAL_STEPS / math.ceil(images / _UNIVERSAL_BATCH))


def _controls(effort: Effort, explained: int) -> list[str]:
    """The control searches. A single class has no other class, whose canvases it could get."""
    if not effort.controls:
        return []
    return ["iscp_redrawn", *(["iscp_shuffled"] if explained > 1 else [])]


def _spread(present: Sequence[str], most: int) -> list[str]:
    """At most `most` evenly spaced classes."""
    count = min(most, len(present))
    return [present[i * len(present) // count] for i in range(count)]


def _left_out(
    effort: Effort, explained: int, present: int, total: int, images: int, iterations: int
) -> list[str]:
    lines = []
    if explained < present:
        lines.append(f"{explained} of {present} classes are explained, evenly spaced")
    if total < images:
        lines.append(f"{total} of {images} images are read, evenly spaced")
    for done, line in (
        (effort.usual_ways, "the other usual ways are compared on few images"),
        (bool(iterations), "activation maximisation is left out"),
        (effort.neurons, "neurons are left out"),
        (bool(effort.trigger), "the search for triggers and universal perturbations is left out"),
        (effort.controls, "the searches on re-drawn weights and other canvases are left out"),
    ):
        if not done:
            lines.append(line)
    return lines
