"""Sets of adversarial images, written in the format of an attack."""

from pathlib import Path

import torch
from torch import Tensor

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.datamodule import ImageData
from cwx.storage.shards import Shards


def adversarial_set(
    data: ImageData, folder: Path, originals: Tensor, targets: Tensor, images: Tensor, *, size=5
) -> AdversarialSet:
    """Images ``[n, C, H, W]`` of bytes, made from test images at `originals` for `targets`."""
    labels = data.splits.test.labels[originals]
    tensors = {"images": images, "labels": labels, "targets": targets, "originals": originals}
    shards = Shards(folder, count=len(originals), size=size)
    shards.start({"made": "for a test"})
    for number in range(len(shards)):
        shards.write(
            number, {name: t[shards.rows(number)].contiguous() for name, t in tensors.items()}
        )
    shards.complete()
    return AdversarialSet.from_shards(
        Shards.open(folder), members=["expert"], attacked=["expert"], metrics={}
    )


def untouched(data: ImageData, folder: Path, *, size=5) -> AdversarialSet:
    """Every test image unchanged, with the class after its own as target."""
    test = data.splits.test
    targets = (test.labels + 1) % len(data.classes)
    return adversarial_set(
        data, folder, torch.arange(len(test)), targets, test.images.clone(), size=size
    )


def swapped(data: ImageData, folder: Path, *, size=5) -> AdversarialSet:
    """Every test image replaced by an image of its target class."""
    test = data.splits.test
    targets = (test.labels + 1) % len(data.classes)
    indices = torch.stack([(test.labels == t).nonzero()[3, 0] for t in targets])
    return adversarial_set(
        data, folder, torch.arange(len(test)), targets, test.images[indices], size=size
    )
