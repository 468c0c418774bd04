"""Which training images explanations lead to suspect (CWX, §5; C12)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.data.datamodule import ImageData
from cwx.explanations.images import Explanations
from cwx.functional.matched_filter import (
    FEWEST,
    Groups,
    gaussian_bytes,
    leave_one_class_out_gaussians,
    split_by_pattern,
)
from cwx.functional.trigger_scores import revealed_pattern

# What fits into the memory of most machines: images of 64x64 pixels in colour take 6 GB.
MOST_BYTES = 16 * 2**30


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """The training images that are taken for poisoned.

    Attributes:
        suspected: boolean mask ``[n]``, in the order of the images trained on.
        at_first: the same, along the revealed pattern itself, before it was improved.
        label: the class that all of them bear; none if nothing is suspected.
        separation: by class, how clearly its images fall into two groups, 0-1.
    """

    suspected: Tensor
    at_first: Tensor
    label: int | None
    separation: Mapping[int, float]


def check_suspicions(data: ImageData, separation: float, place: str) -> None:
    """Refuse what `suspicions` cannot do.

    Args:
        place: the setting that asks for it.

    Raises:
        ValueError: the separation is out of range, the images are too large, or there are none.
    """
    if not 0 <= separation <= 1:
        raise ValueError(f"{place}.separation is {separation}: give a share in 0-1")
    if not len(data.splits.train):
        raise ValueError(f"{place} is about training images, and the data have none: leave it out")
    channels, height, width = data.image_shape
    needed = gaussian_bytes(channels * height * width)
    if needed > MOST_BYTES:
        raise ValueError(
            f"{place} would take {needed / 2**30:.0f} GiB of memory for images of "
            f"{channels}x{height}x{width}: leave it out, or make them smaller (data.source.size)"
        )


def suspicions(
    data: ImageData, sources: Mapping[str, Explanations], *, separation: float
) -> dict[str, Suspicion]:
    """What each source leads to suspect, without knowing a trigger or its target.

    A class's pattern is the mean of its images less that of all others. Each class's training
    images fall into two groups along what its pattern leads to
    (`cwx.functional.matched_filter.split_by_pattern`). The class whose groups are separated best is the
    suspected one, if that is better than `separation`, and its images that carry the pattern are
    suspected. A source that shows a single class, a class of too few images and a training set of
    one class give no suspicion.
    """
    train = data.splits.train
    groups: dict[str, dict[int, Groups]] = {name: {} for name in sources}
    if len(train.labels.unique()) > 1:
        unit = {name: data.normalization.denormalize(e.images) for name, e in sources.items()}
        for label, around in leave_one_class_out_gaussians(train.images, train.labels):
            own = train.images[train.labels == label]
            if len(own) < FEWEST:
                continue
            # Once for all sources: it is most of the work.
            white = around.whiten_images(own)
            for name, explanations in sources.items():
                shown = explanations.labels == label
                if shown.any() and not shown.all():
                    pattern = revealed_pattern(unit[name][shown], unit[name][~shown])
                    groups[name][label] = split_by_pattern(white, around.whiten_pattern(pattern))
    return {name: _suspicion(train.labels, found, separation) for name, found in groups.items()}


def _suspicion(labels: Tensor, groups: Mapping[int, Groups], needed: float) -> Suspicion:
    reached = {label: found.separation for label, found in groups.items()}
    best = max(reached, key=reached.__getitem__, default=None)
    label = None if best is None or reached[best] <= needed else best
    suspected, at_first = torch.zeros(2, len(labels), dtype=torch.bool)
    if label is not None:
        suspected[labels == label] = groups[label].carrying
        at_first[labels == label] = groups[label].at_first
    return Suspicion(suspected=suspected, at_first=at_first, label=label, separation=reached)
