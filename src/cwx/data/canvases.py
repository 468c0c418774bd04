"""Choosing the classes, canvases and searched images of a pattern search (ISCP)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.functional.canvas_sampling import Canvas, derangement
from cwx.functional.class_names import ClassName, describe_class, named_or_all
from cwx.functional.rng import stream
from cwx.networks.finite_logits import finite_logits

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CanvasSet:
    """Canvases by class, the most preferred first.

    Attributes:
        images: unit images ``[n, C, H, W]``, pixels in 0-1.
        labels: the target class of each canvas, ``[n]``.
        ranks: the rank of each canvas within its class, ``[n]``, from 0.
        chosen_for: the class that each canvas was chosen for, ``[n]``.
    """

    images: Tensor
    labels: Tensor
    ranks: Tensor
    chosen_for: Tensor

    def of_other_classes(self, classes: Sequence[int], seed: int) -> "CanvasSet":
        """The same canvases, those of each class as canvases of another class.

        Args:
            classes: at least two, those of `labels` among them.
            seed: of the random derangement of the classes.
        """
        order = derangement(len(classes), stream(seed)).tolist()
        target = {label: classes[place] for label, place in zip(classes, order, strict=True)}
        labels = torch.tensor([target[label] for label in self.labels.tolist()])
        rows = labels.argsort(stable=True)
        return CanvasSet(self.images[rows], labels[rows], self.ranks[rows], self.chosen_for[rows])


def classes_to_explain(
    names: Sequence[ClassName] | None, data: ImageData, setting: str
) -> list[int]:
    """Indices of the classes to explain: the named ones, or all (with `names` ``None``).

    Raises:
        ValueError: a class does not exist, is named twice, or has no test image; or none is named.
    """
    present = set(data.splits.test.labels.tolist())
    indices = named_or_all(names, data.classes, setting)
    if absent := [data.classes[label] for label in indices if label not in present]:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise ValueError(
            f"the test set has no image of class {absent[0]!r}{more}, which the search needs: add "
            f"some, or name the classes to explain ({setting}=[…])"
        )
    return indices


def nontarget_subset(count: int, fraction: float, seed: int, setting: str) -> Tensor:
    """D: a random fraction of `count` test images, as a boolean mask ``[count]``.

    D_n, the non-target images of a class, is D without the images of that class.

    Raises:
        ValueError: `fraction` is not in (0, 1], or selects no image.
    """
    selected = round(fraction * count)
    if not 0 < fraction <= 1 or selected < 1:
        raise ValueError(
            f"{setting} is {fraction}: give a fraction of the {count} test images, above 0 and at "
            "most 1, that selects at least one"
        )
    searched = torch.zeros(count, dtype=torch.bool)
    searched[torch.randperm(count, generator=stream(seed))[:selected]] = True
    return searched


def check_nontarget(
    searched: Tensor, labels: Tensor, targets: Sequence[int], classes: Sequence[str], stage: str
) -> None:
    """Refuse a target class without images of other classes; it needs none of its own.

    Args:
        searched: boolean mask ``[t]`` of the test images of the search.
        labels: of all test images, ``[t]``.

    Raises:
        ValueError: names the class.
    """
    for target in targets:
        if not (searched & (labels != target)).any():
            raise ValueError(
                f"method.{stage} sends images of other classes to "
                f"{describe_class(target, classes)}, and there are none among the "
                f"{int(searched.sum())} test images of the search: give test images of more than "
                f"one class, or raise method.{stage}.searched"
            )


@torch.no_grad()
def test_logits(network: nn.Module, data: ImageData, device: torch.device) -> Tensor:
    """The logits of a network (in eval mode) on all test images, ``[t, K]`` on the CPU."""
    batches = data.test_batches()
    return torch.cat([finite_logits(network(batch.images.to(device))).cpu() for batch in batches])


def choose_canvases(
    data: ImageData,
    logits: Tensor,
    *,
    canvas: Canvas,
    classes: Sequence[int],
    count: int,
    seed: int,
    stage: str,
) -> CanvasSet:
    """At most `count` canvases per class, from the test images or made by `canvas`.

    A class with fewer candidates is logged as a warning.

    Args:
        logits: of all test images ``[t, K]``.
        canvas: selects the test images for a class, or makes canvases of its own.
        stage: the name of the method, for messages.

    Raises:
        ValueError: `count` is below 1, or no class has a canvas.
    """
    if count < 1:
        raise ValueError(f"method.{stage}.canvases is {count}: give 1 or more per class")
    test = data.splits.test
    images, labels, ranks = [], [], []
    for label in classes:
        selected = canvas(logits, test.labels, label, count, stream(seed, label))
        if isinstance(selected, Tensor):
            canvases = test.images[selected].float() / 255
            if len(canvases) < count:
                line = "%s: class %r has %d canvases instead of %d%s"
                rest = "" if len(canvases) else " and gets no pattern"
                log.warning(line, stage, data.classes[label], len(canvases), count, rest)
        else:
            canvases = selected(data.image_shape)
        images.append(canvases)
        labels.append(torch.full((len(canvases),), label))
        ranks.append(torch.arange(len(canvases)))
    if not sum(map(len, labels)):
        raise ValueError(
            f"{stage} finds no canvas for any class: choose another way of sampling "
            f"(canvas@method.{stage}.canvas=random), or a network that knows the classes"
        )
    targets = torch.cat(labels)
    return CanvasSet(torch.cat(images), targets, torch.cat(ranks), targets)


def check_other_classes(classes: Sequence[int], names: Sequence[str], stage: str) -> None:
    """Refuse the canvases of other classes where a single class is explained.

    Raises:
        ValueError: names the class.
    """
    if len(classes) < 2:
        raise ValueError(
            f"method.{stage}.canvas_classes is other, and {names[classes[0]]!r} is the only class "
            f"to explain: name two classes or more in method.{stage}.classes, or leave {stage} out "
            "of method=[…]"
        )
