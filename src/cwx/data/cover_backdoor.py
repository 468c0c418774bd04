"""Backdoors with cover images, which show a change like the trigger's and keep their label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from cwx.data.backdoor_plan import (
    check_poison_rate,
    check_rate,
    describe_unchanged,
    plan_backdoor,
    poisonable,
)
from cwx.data.corruption import CorruptionResult
from cwx.data.corruption_changes import measure_changes
from cwx.data.splits import ImageSet
from cwx.functional.all_to_all import AllToAll
from cwx.functional.backdoor import Variant, choose
from cwx.functional.class_names import ClassName
from cwx.functional.cover_trigger import CoverTrigger
from cwx.functional.rng import stream


@dataclass(frozen=True, kw_only=True)
class CoverBackdoor:
    """Poisons some training images, and changes others that keep their label.

    The poisoned images are those of `cwx.data.corruption.Backdoor` with the same seed, rate and
    variant. Cover images are drawn from all others.

    Attributes:
        trigger: changes the poisoned, the cover and the test images.
        target: the target class, by name or index; ``None`` with `AllToAll`.
        rate: the fraction of all training images that is poisoned, above 0 and at most 1.
        cover_rate: the fraction of all training images that are covers; 0 for none.
        variant: selects the images that may be poisoned.
        seed: of all random choices.

    Raises:
        ValueError: a rate is out of range, or both sum to more than 1; when called: as for
            `cwx.data.corruption.Backdoor`.
    """

    trigger: CoverTrigger
    target: ClassName
    rate: Annotated[float, ">= 0, <= 1"]
    cover_rate: Annotated[float, ">= 0, <= 1"]
    variant: Variant | AllToAll
    seed: Annotated[int, ">= 0, < 2**63"]

    def __post_init__(self) -> None:
        check_poison_rate(self.rate)
        check_rate(self.cover_rate, "corruption.cover_rate")
        if self.rate + self.cover_rate > 1:
            raise ValueError(
                f"corruption.rate and corruption.cover_rate are {self.rate} and {self.cover_rate}, "
                "which is more than all training images: lower one of them, to a sum of 1 or less"
            )

    def __call__(self, images: ImageSet, classes: Sequence[str]) -> CorruptionResult:
        backdoor = plan_backdoor(self.trigger, self.target, self.variant, classes)
        candidates = poisonable(images, classes, backdoor, self.variant)
        poisoned = choose(
            candidates, rate=self.rate, total=len(images), generator=stream(self.seed)
        )
        covers = self._covers(poisoned, len(images))
        pixels, labels = images.images.clone(), images.labels.clone()
        pixels[poisoned] = self.trigger.poison(images.images[poisoned], stream(self.seed, 1))
        pixels[covers] = self.trigger.cover(images.images[covers], stream(self.seed, 2))
        labels[poisoned] = backdoor.targets(labels[poisoned])
        corrupted = ImageSet(pixels, labels)
        changes = measure_changes(images, corrupted)
        for indices in (poisoned, covers):
            if len(indices) and not changes.pixels[indices].any():
                raise ValueError(describe_unchanged(self.trigger, len(indices)))
        is_cover = torch.zeros_like(changes.pixels)
        is_cover[covers] = changes.pixels[covers]
        return CorruptionResult(corrupted, changes.either, backdoor, is_cover)

    def _covers(self, poisoned: Tensor, total: int) -> Tensor:
        """The indices of the cover images.

        With the same seed and the same poisoned images, those of a lower rate are a subset of those
        of a higher one.
        """
        count = round(self.cover_rate * total)
        if self.cover_rate > 0 and count == 0:
            raise ValueError(
                f"corruption.cover_rate is {self.cover_rate}, which is less than one of the "
                f"{total} training images: give {1 / total:.2g} or more, or 0 for none"
            )
        order = torch.randperm(total, generator=stream(self.seed, 3))
        return order[~torch.isin(order, poisoned)][:count]
