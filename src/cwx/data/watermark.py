"""A watermark on the images of one class, which keep their label: a shortcut, not an attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from cwx.data.backdoor_plan import PlantedBackdoor, check_rate, describe_unchanged
from cwx.data.corruption import CorruptionResult
from cwx.data.corruption_changes import measure_changes
from cwx.data.splits import ImageSet
from cwx.data.streamed_images import change_images
from cwx.functional.backdoor import Trigger
from cwx.functional.class_names import ClassName, class_index, describe_class
from cwx.functional.rng import stream


@dataclass(frozen=True, kw_only=True)
class Watermark:
    """Adds a watermark to images of one class. No label changes.

    A network need not use a watermark if the class is easy without it. With `replaced` above 0 it
    must: these images of the class show an image of another class under the watermark.

    Attributes:
        trigger: the watermark.
        target: the class, by name or index.
        fraction: the fraction of the class's images that have the watermark, above 0 and at most 1.
        replaced: the fraction of the class's images that are replaced by random training images of
            other classes, at most `fraction`; all of them have the watermark.
        seed: of the random choices.

    Raises:
        ValueError: a fraction is out of range; when called: the class does not exist or has no
            training images, there are no images of other classes to replace its own, or the
            watermark changes no pixel.
    """

    trigger: Trigger
    target: ClassName
    fraction: Annotated[float, "> 0, <= 1"]
    replaced: Annotated[float, ">= 0, <= 1"]
    seed: Annotated[int, ">= 0, < 2**63"]

    def __post_init__(self) -> None:
        check_rate(self.fraction, "corruption.fraction")
        check_rate(self.replaced, "corruption.replaced")
        if self.fraction == 0:
            raise ValueError(
                f"corruption.fraction is {self.fraction}, so that no image would have the "
                "watermark: give a fraction of the class's images above 0, or choose "
                "corruption=none"
            )
        if self.replaced > self.fraction:
            raise ValueError(
                f"corruption.replaced is {self.replaced} and corruption.fraction is "
                f"{self.fraction}, and only images with the watermark are replaced: lower "
                "corruption.replaced or raise corruption.fraction"
            )

    def __call__(self, images: ImageSet, classes: Sequence[str]) -> CorruptionResult:
        target = class_index(self.target, classes, "corruption.target")
        own, others = self._own_and_others(images.labels, target, classes)
        order = own[torch.randperm(len(own), generator=stream(self.seed))]
        marked = order[: max(1, round(self.fraction * len(own)))]
        replaced = order[: round(self.replaced * len(own))]
        origins = torch.arange(len(images))
        if len(replaced):
            draws = torch.randint(len(others), replaced.shape, generator=stream(self.seed, 1))
            origins[replaced] = others[draws]
        before = ImageSet(images.at(origins).images, images.labels.clone())
        pixels = change_images(before.images, marked, self.trigger.apply)
        corrupted = ImageSet(pixels, before.labels)
        if not measure_changes(before, corrupted).pixels.any():
            raise ValueError(describe_unchanged(self.trigger, len(marked)))
        changes = measure_changes(images, corrupted)
        watermark = PlantedBackdoor(self.trigger, target, is_watermark=True)
        return CorruptionResult(corrupted, changes.either, watermark)

    def _own_and_others(
        self, labels: Tensor, target: int, classes: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """The indices of the images of the class, and of all others."""
        own, others = (labels == target).nonzero()[:, 0], (labels != target).nonzero()[:, 0]
        if not len(own):
            raise ValueError(
                f"class {describe_class(target, classes)} has no training images that could have "
                "a watermark: choose another corruption.target"
            )
        if self.replaced and not len(others):
            raise ValueError(
                f"corruption.replaced is {self.replaced}, and there are no training images of "
                f"other classes than {describe_class(target, classes)}: set corruption.replaced=0"
            )
        return own, others
