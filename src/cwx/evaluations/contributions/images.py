"""The evaluated images: test images and adversarial images of the same test images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.functional.spacing import evenly_spaced_by_class
from cwx.training.subject import Subject


@dataclass(frozen=True, kw_only=True)
class EvaluatedImages:
    """Images of one kind.

    Attributes:
        kind: ``test`` or ``adversarial``.
        read: from positions ``[k]`` among these images to bytes ``[k, C, H, W]``.
        labels: of the images or their originals, ``[n]``.
        targets: of the attack, ``[n]``; −1 for test images.
        keys: the index of each test image, or of the original. Random draws depend on it alone, so
            that an adversarial image and its original have the same.
    """

    kind: str
    read: Callable[[Tensor], Tensor]
    labels: Tensor
    targets: Tensor
    keys: list[tuple[int]]

    def __len__(self) -> int:
        return len(self.labels)

    def blocks(self, size: int) -> Iterator[Tensor]:
        """Positions of at most `size` consecutive images."""
        return iter(torch.arange(len(self)).split(size))


def evaluated_indices(subject: Subject, count: int) -> Tensor:
    """At most `count` test images, evenly spaced among the originals of adversarial images.

    Without adversarial images, among all test images.
    """
    if subject.adversarial is None:
        indices = torch.arange(len(subject.data.splits.test))
    else:
        indices = subject.adversarial.originals.unique()
    labels = subject.data.splits.test.labels.cpu()[indices]
    return indices[evenly_spaced_by_class(labels, count)]


def evaluated_images(subject: Subject, indices: Tensor) -> list[EvaluatedImages]:
    """Test images, and one adversarial image of each if there are any.

    Of several adversarial images of a test image, the first is taken for the first image, the
    second for the second and so on, so that all ranks of targets occur.
    """
    test, adversarial = subject.data.splits.test, subject.adversarial
    labels = test.labels.cpu()[indices]
    images = [
        EvaluatedImages(
            kind="test",
            read=lambda positions: test.images[indices[positions]].cpu(),
            labels=labels,
            targets=torch.full_like(labels, -1),
            keys=[(index,) for index in indices.tolist()],
        )
    ]
    if adversarial is not None:
        attacked = []
        for number, index in enumerate(indices.tolist()):
            own = (adversarial.originals == index).nonzero()[:, 0]
            attacked.append(int(own[number % len(own)]))
        chosen = torch.tensor(attacked)
        images.append(
            EvaluatedImages(
                kind="adversarial",
                read=lambda positions: adversarial.at(chosen[positions]),
                labels=adversarial.labels[chosen],
                targets=adversarial.targets[chosen],
                keys=[(index,) for index in indices.tolist()],
            )
        )
    return images
