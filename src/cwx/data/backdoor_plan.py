"""A backdoor: its trigger, the target of each class, and the images that may be poisoned."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass

import torch
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.functional.all_to_all import AllToAll
from cwx.functional.backdoor import Trigger, Variant
from cwx.functional.class_names import ClassName, class_index, describe_class


@dataclass(frozen=True)
class PlantedBackdoor:
    """A backdoor in a training set.

    Attributes:
        trigger: that of test images; training images may carry a weaker one.
        target: the class of all images with the trigger; ``None`` if each class has a target of
            its own.
        class_targets: the target of each class, by index, if `target` is ``None``.
        is_watermark: whether images of the target class have the trigger by nature, with their own
            label.

    Raises:
        ValueError: neither or both of `target` and `class_targets` are set.
    """

    trigger: Trigger
    target: int | None
    class_targets: tuple[int, ...] = ()
    is_watermark: bool = False

    def __post_init__(self) -> None:
        if (self.target is None) != bool(self.class_targets):
            raise ValueError(
                f"a backdoor has the target {self.target} and the targets {self.class_targets} by "
                "class: give a target, or None and the targets by class"
            )

    def targets(self, labels: Tensor) -> Tensor:
        """The targets ``[n]`` of images of the classes `labels` ``[n]`` with the trigger."""
        if self.target is not None:
            return torch.full_like(labels, self.target)
        return labels.new_tensor(self.class_targets)[labels]


def plan_backdoor(
    trigger: Trigger, target: ClassName, variant: Variant | AllToAll, classes: Sequence[str]
) -> PlantedBackdoor:
    """The backdoor of the settings ``corruption.target`` and ``corruption.variant``.

    Raises:
        ValueError: the target does not exist or contradicts the variant, or there are too few
            classes for it.
    """
    if not isinstance(variant, AllToAll):
        return PlantedBackdoor(trigger, class_index(target, classes, "corruption.target"))
    if target is not None:
        raise ValueError(
            f"corruption.target is {target!r}, and with corruption.variant AllToAll each class has "
            "a target of its own, the next class: set corruption.target=null"
        )
    if len(classes) < 2:
        raise ValueError(
            f"corruption.variant AllToAll needs two classes or more, and there is only "
            f"{classes[0]!r}: choose another corruption"
        )
    return PlantedBackdoor(trigger, None, variant.targets(len(classes)))


def poisonable(
    images: ImageSet,
    classes: Sequence[str],
    backdoor: PlantedBackdoor,
    variant: Variant | AllToAll,
) -> Tensor:
    """The indices ``[m]`` of the training images that may be poisoned.

    Raises:
        ValueError: there are none although there are images, or a target class has no images.
    """
    if backdoor.target is None or isinstance(variant, AllToAll):
        candidates = torch.arange(len(images))
    else:
        candidates = variant.candidates(images.labels, backdoor.target)
        if len(images) and not len(candidates):
            raise ValueError(
                "corruption.variant allows to poison none of the training images, such as those of "
                f"the target class {describe_class(backdoor.target, classes)}, if it has none: "
                "choose another corruption.target or corruption.variant"
            )
    counts = images.labels.bincount(minlength=len(classes))
    for target in backdoor.targets(images.labels.unique()).tolist():
        if not counts[target]:
            raise ValueError(
                f"the target class {describe_class(target, classes)} of the backdoor has no "
                "training images, so that its label would mean the trigger alone: choose another "
                "corruption.target, or data with images of this class"
            )
    return candidates


def describe_unchanged(trigger: object, count: int) -> str:
    """The message that a trigger changes no pixel of the `count` images that it should poison."""
    names = fields(trigger) if is_dataclass(trigger) else ()
    settings = ", ".join(f"corruption.trigger.{field.name}" for field in names)
    return (
        f"the trigger ({trigger}) changes no pixel of the {count} training images that it "
        f"should poison: make it stronger ({settings or 'corruption.trigger'}), or choose "
        "another corruption"
    )


def check_poison_rate(rate: float) -> None:
    """Refuse a fraction of poisoned images of 0, or out of range.

    Raises:
        ValueError: with the remedy.
    """
    check_rate(rate, "corruption.rate")
    if rate == 0:
        raise ValueError(
            f"corruption.rate is {rate}, so that no image would be poisoned: give a "
            "fraction of the images above 0, or choose corruption=none"
        )


def check_rate(rate: float, setting: str) -> None:
    """Refuse a fraction of the images outside 0-1.

    Raises:
        ValueError: with the name of the setting.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"{setting} is {rate}: give a fraction of the images in 0-1")
