"""A few real images of each class, kept with a run to stand beside its explanations."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.data.splits import ImageSet, Splits
from cwx.functional.rng import stream

# Enough to see what a class varies by.
PER_CLASS = 5
# Of pixels: a thousand classes of 224x224 become 55x55.
BUDGET = 32 * 2**20


def sampled(splits: Splits) -> dict[str, Tensor]:
    """Images as bytes ``<kind>/images`` ``[n, C, H, W]`` and ``<kind>/labels`` ``[n]``, by class.

    - ``real``: the first test images of each class, never corrupted.
    - ``train``: training images drawn at random from each class, as trained on: corrupted where a
      study corrupts them, under the labels they bear there.
    - ``mean``: one image a class, the mean of its training images.

    Up to five a class; of many classes fewer, and smaller where one of each is still too much.
    A kind that has no image is left out.
    """
    kinds = {"real": splits.test, "train": splits.train}
    found = [images for images in kinds.values() if len(images)]
    classes = sum(len(images.labels.unique()) for images in found)
    one = math.prod(splits.test.images.shape[1:])
    # Means are as many as the classes of training images, at most all.
    fits = (BUDGET // one - len(splits.classes)) // max(classes, 1)
    per_class = min(max(fits, 1), PER_CLASS)
    chosen = {
        "real": splits.test.first(per_class),
        "train": _drawn(splits.train, per_class),
        "mean": _means(splits.train),
    }
    total = one * sum(len(images) for images in chosen.values())
    factor = math.ceil(math.sqrt(total / BUDGET))
    return {
        f"{kind}/{part}": tensor
        for kind, images in chosen.items()
        if len(images)
        for part, tensor in (
            ("images", _smaller(images.images, factor)),
            ("labels", images.labels),
        )
    }


def _drawn(train: ImageSet, per_class: int) -> ImageSet:
    order = torch.randperm(len(train), generator=stream(0))
    shuffled = train.labels[order]
    chosen = [order[shuffled == c][:per_class] for c in shuffled.unique()]
    return train.at(torch.cat([order[:0], *chosen]))


def _means(train: ImageSet) -> ImageSet:
    labels = train.labels.unique()
    # One class at a time, in bytes: a float copy of all images might not fit.
    means = [
        train.images[train.labels == c].sum(0, dtype=torch.int64).double()
        / (train.labels == c).sum()
        for c in labels
    ]
    return ImageSet(
        torch.stack([m.round().to(torch.uint8) for m in means]) if means else train.images[:0],
        labels,
    )


def _smaller(images: Tensor, factor: int) -> Tensor:
    """Bytes averaged over squares of `factor` pixels."""
    if factor <= 1:
        return images
    # An image at a time: as floats, all take four times the memory.
    factor = min(factor, *images.shape[2:])
    small = [F.avg_pool2d(i[None].float(), factor)[0].round().to(torch.uint8) for i in images]
    return torch.stack(small)
