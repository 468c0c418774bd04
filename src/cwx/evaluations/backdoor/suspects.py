"""Training images that explanations lead to suspect as poisoned (CWX, §5)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.data.datamodule import ImageData
from cwx.evaluations.memory_limit import STATISTICS_BYTES
from cwx.explanations.images import Explanations
from cwx.functional.matched_filter import (
    MIN_IMAGES_PER_CLASS,
    PatternSplit,
    gaussian_bytes,
    leave_one_class_out_gaussians,
    split_by_pattern,
)
from cwx.functional.trigger_scores import revealed_pattern


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """The training images that are classified as poisoned.

    Attributes:
        suspected: boolean mask ``[n]``, in the order of the training images.
        initially_suspected: the same for the revealed pattern itself, before its refinement by
            the groups.
        label: the label of all suspected images; ``None`` if none is suspected.
        separation: by class, the separation of its images into two groups, 0-1.
    """

    suspected: Tensor
    initially_suspected: Tensor
    label: int | None
    separation: Mapping[int, float]


def poisoned_images(data: ImageData) -> Tensor | None:
    """Which training images a backdoor poisoned ``[n]``; ``None`` if the study does not know it."""
    corrupted = data.corrupted
    known = corrupted.backdoor is not None and data.splits.train is corrupted.images
    return corrupted.is_poisoned if known else None


def check_suspicions(data: ImageData, separation: float, setting: str) -> None:
    """Refuse settings and data that `suspicions` cannot process.

    Args:
        data: the study's images.
        separation: see `suspicions`.
        setting: the part of the configuration that needs suspicions, for the message.

    Raises:
        ValueError: the separation is out of range, there are no training images, or the images
            are so large that the Gaussians exceed `STATISTICS_BYTES`.
    """
    if not 0 <= separation <= 1:
        raise ValueError(f"{setting}.separation is {separation}: give a fraction in 0-1")
    if not len(data.splits.train):
        raise ValueError(f"{setting} needs training images, and the data have none: leave it out")
    channels, height, width = data.image_shape
    # Images of 64x64 pixels in colour take 6 GB.
    needed = gaussian_bytes(channels * height * width)
    if needed > STATISTICS_BYTES:
        raise ValueError(
            f"{setting} would take {needed / 2**30:.0f} GiB of memory for images of "
            f"{channels}x{height}x{width}: leave it out, or make them smaller (data.source.size)"
        )


def suspicions(
    data: ImageData, sources: Mapping[str, Explanations], *, separation: float
) -> dict[str, Suspicion]:
    """The suspicion of each source, without knowledge of a trigger or its target.

    The pattern of a class is the mean of its images minus the mean of all others. The class's
    training images are split into two groups along the pattern
    (`cwx.functional.matched_filter.split_by_pattern`). The class with the highest separation of
    its groups is suspected if that is above `separation`, and in it the images that carry the
    pattern. There is no suspicion if a source shows a single class, a class has too few images,
    or the training set has a single class.

    Args:
        data: the study's images.
        sources: normalised images by source.
        separation: threshold in 0-1.
    """
    train = data.splits.train
    groups: dict[str, dict[int, PatternSplit]] = {name: {} for name in sources}
    if len(train.labels.unique()) > 1:
        unit = {name: data.normalization.denormalize(e.images) for name, e in sources.items()}
        for label, gaussian in leave_one_class_out_gaussians(train.images, train.labels):
            of_class = train.images[train.labels == label]
            if len(of_class) < MIN_IMAGES_PER_CLASS:
                continue
            # Once for all sources: the most expensive step.
            white = gaussian.whiten_images(of_class)
            for name, explanations in sources.items():
                mask = explanations.labels == label
                if mask.any() and not mask.all():
                    pattern = revealed_pattern(unit[name][mask], unit[name][~mask])
                    groups[name][label] = split_by_pattern(white, gaussian.whiten_pattern(pattern))
    return {
        name: _suspicion(train.labels, by_class, separation) for name, by_class in groups.items()
    }


def _suspicion(labels: Tensor, groups: Mapping[int, PatternSplit], threshold: float) -> Suspicion:
    separation = {label: split.separation for label, split in groups.items()}
    best = max(separation, key=separation.__getitem__, default=None)
    label = None if best is None or separation[best] <= threshold else best
    suspected, initially_suspected = torch.zeros(2, len(labels), dtype=torch.bool)
    if label is not None:
        suspected[labels == label] = groups[label].carriers
        initially_suspected[labels == label] = groups[label].initial_carriers
    return Suspicion(
        suspected=suspected,
        initially_suspected=initially_suspected,
        label=label,
        separation=separation,
    )
