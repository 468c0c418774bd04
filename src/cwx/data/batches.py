"""The batches of images that networks are trained and measured on."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cwx.data.global_batches import Draw
from cwx.data.random_crops import RandomCrops
from cwx.data.splits import ImageSet
from cwx.data.streamed_images import StreamedImages
from cwx.functional.images import Normalization


class Batch(NamedTuple):
    """One rank's part of a batch.

    Attributes:
        images: normalised, ``[b, C, H, W]``.
        labels: class indices ``[b]``.
        total: the number of images of the batch on all ranks.
    """

    images: Tensor
    labels: Tensor
    total: int


class ResidentBatches(Dataset[list[Batch]]):
    """Indexes whole batches at once, without a Python loop over images."""

    def __init__(self, images: ImageSet, normalization: Normalization) -> None:
        self.set, self.normalization = images, normalization

    def __getitem__(self, draws: list[Draw]) -> list[Batch]:
        return [
            Batch(
                self.normalization.from_bytes(self.set.images[indices]),
                self.set.labels[indices],
                total,
            )
            for indices, total in draws
        ]


class StreamedBatches(Dataset[list[Batch]]):
    """Decodes whole batches of bytes, which are normalised where they are used.

    Bytes take a quarter of the memory of floats on the way from a worker process to a device.

    Args:
        images, labels: of the training set.
        crops: of each image.
        seeds: of the networks, in the order of their batches.
    """

    def __init__(
        self, images: StreamedImages, labels: Tensor, crops: RandomCrops, seeds: Sequence[int]
    ) -> None:
        self.images, self.labels = images, labels
        self.crops, self.seeds = crops, seeds

    def __getitem__(self, step: tuple[int, list[Draw]]) -> list[Batch]:
        epoch, draws = step
        return [
            Batch(self._images(indices, seed, epoch), self.labels[indices], total)
            for seed, (indices, total) in zip(self.seeds, draws, strict=True)
        ]

    def _images(self, indices: Tensor, seed: int, epoch: int) -> Tensor:
        if self.crops.is_active:
            return self.images.crop(indices, self.crops, seed, epoch)
        return self.images.decode(indices)


def normalised(batches: Sequence[Batch], normalization: Normalization) -> list[Batch]:
    """The same batches, with images that arrive as bytes normalised."""
    return [
        batch._replace(images=normalization.from_bytes(batch.images))
        if batch.images.dtype == torch.uint8
        else batch
        for batch in batches
    ]


def check_crops(crops: RandomCrops, train: ImageSet) -> None:
    """Refuse random crops of images that are not those of whole files.

    Raises:
        ValueError: with the remedy.
    """
    pixels = train.images
    is_whole = isinstance(pixels, StreamedImages) and not pixels.changes
    if crops.is_active and len(train) and not is_whole:
        raise ValueError(
            "data.random_crops crops images in files, but these training images are in memory, "
            "or a part of the study changes their pixels: set data.storage=disk and leave that "
            "part out, or set data.random_crops.smallest_area=null and data.random_crops.flip=0"
        )
