"""The canvases of a pattern search: which classes, how many, on which images of a study (I5-I7)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.functional.canvas_sampling import Canvas
from cwx.functional.class_names import class_index
from cwx.functional.rng import stream

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """Canvases by class, the most preferred first.

    Attributes:
        images: unit, ``[n, C, H, W]``.
        labels: the class that each is for, ``[n]``.
        places: its place among those of the class, ``[n]``.
    """

    images: Tensor
    labels: Tensor
    places: Tensor


def chosen_classes(names: Sequence[str | int] | None, data: ImageData, setting: str) -> list[int]:
    """The classes to explain, by index: those named, or all that have test images.

    Raises:
        ValueError: there is no such class, or one named has no test image.
    """
    present = set(data.splits.test.labels.tolist())
    if names is None:
        found = list(range(len(data.classes)))
    else:
        found = [class_index(name, data.classes) for name in names]
    if absent := [data.classes[label] for label in found if label not in present]:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise ValueError(
            f"the test set has no image of class {absent[0]!r}{more}, so that what leads to it "
            f"cannot be measured: add some, or name the classes to explain ({setting}=[…])"
        )
    return found


def nontarget_subset(count: int, fraction: float, seed: int, setting: str) -> Tensor:
    """D: a random share of `count` test images, boolean mask ``[count]``; D_n leaves out a class's own.

    Raises:
        ValueError: the share is not above 0 and at most 1, or leaves no image.
    """
    taken = round(fraction * count)
    if not 0 < fraction <= 1 or taken < 1:
        raise ValueError(
            f"{setting} is {fraction}: give a share of the {count} test images, above 0 and at most 1"
        )
    searched = torch.zeros(count, dtype=torch.bool)
    searched[torch.randperm(count, generator=stream(seed))[:taken]] = True
    return searched


@torch.no_grad()
def test_logits(network: nn.Module, data: ImageData, device: torch.device) -> Tensor:
    """What a network in eval mode says of all test images, ``[t, K]`` on the CPU."""
    return torch.cat([network(batch.images.to(device)).cpu() for batch in data.test_batches()])


def choose_canvases(
    data: ImageData,
    logits: Tensor,
    *,
    canvas: Canvas,
    classes: Sequence[int],
    count: int,
    seed: int,
    stage: str,
) -> Chosen:
    """At most `count` test images a class; a class with fewer candidates is named in the log.

    Args:
        logits: of all test images ``[t, K]``.
        stage: the method, in messages.

    Raises:
        ValueError: `count` is below 1, or no class has any.
    """
    if count < 1:
        raise ValueError(f"method.{stage}.canvases is {count}: give 1 or more a class")
    test = data.splits.test
    images, labels, places = [], [], []
    for label in classes:
        indices = canvas(logits, test.labels, label, count, stream(seed, label))
        if indices is None:
            found = torch.ones(1, *data.image_shape)
        else:
            found = test.images[indices].float() / 255
            if len(found) < count:
                line = "%s: class %r has %d canvases of the %d asked for%s"
                rest = "" if len(found) else ", and gets no pattern"
                log.warning(line, stage, data.classes[label], len(found), count, rest)
        images.append(found)
        labels.append(torch.full((len(found),), label))
        places.append(torch.arange(len(found)))
    if not sum(map(len, labels)):
        raise ValueError(
            f"{stage} finds no canvas for any class: choose another way of sampling "
            f"(canvas@method.{stage}.canvas=random), or a network that knows the classes"
        )
    return Chosen(torch.cat(images), torch.cat(labels), torch.cat(places))
