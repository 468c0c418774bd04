"""The batches of images that networks are trained and measured on."""

from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from cwx.data.global_batches import Draw
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
    """

    def __init__(self, images: StreamedImages, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __getitem__(self, draws: list[Draw]) -> list[Batch]:
        return [
            Batch(self.images.decode(indices), self.labels[indices], total)
            for indices, total in draws
        ]
