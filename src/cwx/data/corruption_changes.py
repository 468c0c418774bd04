"""What a corruption changed, measured on the images and labels themselves."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.data.streamed_images import StreamedImages

# Images compared at a time, so that a comparison takes little memory.
_CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The images of a training set that differ from the clean ones.

    Attributes:
        pixels: boolean mask ``[n]``: True where a pixel differs.
        labels: boolean mask ``[n]``: True where the label differs.
        mean: mean absolute difference of the pixels of the images in `pixels`, on the 0-255
            scale; 0 if there are none.
    """

    pixels: Tensor
    labels: Tensor
    mean: float

    @property
    def either(self) -> Tensor:
        """Boolean mask ``[n]``: True where a pixel or the label differs."""
        return self.pixels | self.labels

    def metrics(self) -> dict[str, float]:
        """The metrics of a run.

        ``corruption/effective_rate``, ``…/changed_pixels`` and ``…/changed_labels`` are fractions
        of the training images in 0-1: those that differ, those whose pixels and those whose label
        differ. ``…/mean_change`` is `mean`. Without differences there is only the first, 0.
        """
        if not self.either.any():
            return {"corruption/effective_rate": 0.0}
        fractions = {
            "effective_rate": self.either,
            "changed_pixels": self.pixels,
            "changed_labels": self.labels,
        }
        metrics = {
            f"corruption/{name}": mask.double().mean().item() for name, mask in fractions.items()
        }
        return metrics | ({"corruption/mean_change": self.mean} if self.pixels.any() else {})


def _candidates(clean: ImageSet, corrupted: ImageSet) -> Tensor:
    """The indices of the images that may differ: decoding all of them would take long."""
    before, after = clean.images, corrupted.images
    if isinstance(before, StreamedImages) and isinstance(after, StreamedImages):
        return after.differing(before).nonzero()[:, 0]
    return torch.arange(len(clean), device=clean.labels.device)


def measure_changes(clean: ImageSet, corrupted: ImageSet) -> Changes:
    """The differences between two sets of the same shapes, image by image."""
    labels = clean.labels != corrupted.labels
    pixels = torch.zeros(len(clean), dtype=torch.bool, device=labels.device)
    total = count = 0.0
    if clean.images is not corrupted.images:
        for rows in _candidates(clean, corrupted).split(_CHUNK):
            before, after = clean.images[rows], corrupted.images[rows]
            pixels[rows] = differs = (before != after).flatten(1).any(1)
            change = (after[differs].short() - before[differs].short()).abs()
            total += change.sum(dtype=torch.float64).item()
            count += change.numel()
    return Changes(pixels=pixels, labels=labels, mean=total / count if count else 0.0)
