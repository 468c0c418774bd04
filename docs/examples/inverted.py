"""My own corruption: inverts some training images and keeps their labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cwx.data.corruption import CorruptionResult
from cwx.data.splits import ImageSet
from cwx.functional.rng import stream


@dataclass(frozen=True, kw_only=True)
class Inverted:
    rate: float
    seed: int

    def __call__(self, images: ImageSet, classes: Sequence[str]) -> CorruptionResult:
        order = torch.randperm(len(images), generator=stream(self.seed))
        is_corrupted = torch.zeros(len(images), dtype=torch.bool)
        is_corrupted[order[: round(self.rate * len(images))]] = True
        pixels = torch.where(is_corrupted[:, None, None, None], 255 - images.images, images.images)
        # A backdoor would be a cwx.data.corruption.PlantedBackdoor.
        return CorruptionResult(ImageSet(pixels, images.labels), is_corrupted, backdoor=None)
