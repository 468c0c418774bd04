"""A few real images per class, saved with a run and shown beside its explanations."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.data.free_memory import release_freed_memory
from cwx.data.splits import ImageSet, Splits
from cwx.functional.rng import stream

# Enough to show the variation within a class.
PER_CLASS = 5
# In bytes (one per pixel and channel): 1000 classes of 224x224 images are reduced to 55x55.
BUDGET = 32 * 2**20


def sample_images(splits: Splits) -> dict[str, Tensor]:
    """Byte images ``<kind>/images`` ``[n, C, H, W]`` and ``<kind>/labels`` ``[n]``, by class.

    - ``real``: the first test images of each class, never corrupted.
    - ``train``: training images drawn at random from each class, as trained on: corrupted if the
      study corrupts them, with the labels that they are trained with.
    - ``mean``: one image per class, the mean of its training images.

    At most `PER_CLASS` images per class and kind; fewer if many classes would exceed `BUDGET`,
    and downscaled if one image per class still exceeds it. Kinds without images are left out.
    """
    non_empty = [images for images in (splits.test, splits.train) if len(images)]
    classes = sum(len(images.labels.unique()) for images in non_empty)
    image_size = math.prod(splits.test.images.shape[1:])
    # There is at most one mean image per class.
    affordable = (BUDGET // image_size - len(splits.classes)) // max(classes, 1)
    per_class = min(max(affordable, 1), PER_CLASS)
    means, labels = class_means(splits.train)
    release_freed_memory()
    samples = {
        "real": splits.test.first(per_class),
        "train": draw_per_class(splits.train, per_class),
        "mean": ImageSet(means.round().to(torch.uint8), labels),
    }
    total = image_size * sum(len(images) for images in samples.values())
    factor = math.ceil(math.sqrt(total / BUDGET))
    return {
        f"{kind}/{part}": tensor
        for kind, images in samples.items()
        if len(images)
        for part, tensor in (
            ("images", _downscale(images.images[:], factor)),
            ("labels", images.labels),
        )
    }


def draw_per_class(train: ImageSet, per_class: int) -> ImageSet:
    """At most `per_class` images of each class, drawn at random with a fixed seed, by class."""
    order = torch.randperm(len(train), generator=stream(0))
    shuffled = train.labels[order]
    by_class = [order[shuffled == c][:per_class] for c in shuffled.unique()]
    # The first part is empty, for sets without images.
    return train.at(torch.cat([order[:0], *by_class]))


def class_means(train: ImageSet) -> tuple[Tensor, Tensor]:
    """The mean image of each class that has images, and the class indices.

    Returns:
        float64 ``[k, C, H, W]`` in 0-255, and int64 ``[k]`` in ascending order.
    """
    labels = train.labels.unique()
    shape = (len(labels), *train.images.shape[1:])
    # One pass. Sums of bytes are exact in float64, whatever their order.
    sums = torch.zeros(shape, dtype=torch.float64, device=train.images.device)
    for images, of_batch in train.batches():
        for label in of_batch.unique():
            row = torch.searchsorted(labels, label)
            sums[row] += images[of_batch == label].sum(0, dtype=torch.int64).double()
    counts = torch.bincount(train.labels)[labels]
    return sums / counts[:, None, None, None], labels


def _downscale(images: Tensor, factor: int) -> Tensor:
    """Byte images, averaged over blocks of `factor` x `factor` pixels."""
    if factor <= 1:
        return images
    # One image at a time: a float copy of all takes four times the memory.
    factor = min(factor, *images.shape[2:])
    small = [F.avg_pool2d(i[None].float(), factor)[0].round().to(torch.uint8) for i in images]
    return torch.stack(small)
