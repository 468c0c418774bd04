"""Where labelled images come from: each source yields train and test sets as byte tensors."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Images ``[n, C, H, W]`` as bytes in 0-255 and labels ``[n]`` as int64 class indices."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ImageSet":
        return ImageSet(self.images.to(device), self.labels.to(device))

    def first(self, per_class: int) -> "ImageSet":
        """At most `per_class` images of each class, the first of them, in their order."""
        chosen = [(self.labels == c).nonzero()[:per_class, 0] for c in self.labels.unique()]
        indices = torch.cat(chosen).sort().values
        return ImageSet(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Splits:
    """A data set: its train and test images and the name of each class by index.

    The names differ from each other and are for people: they may hold any printable character,
    also a slash, and make no path.
    """

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]


class Source(Protocol):
    def prepare(self) -> None:
        """Download what is missing; called by one process a machine."""

    def load(self) -> Splits:
        """Read both splits into memory.

        Raises:
            ValueError: the data are missing or unfit, with the remedy.
        """


class Digits:
    """scikit-learn's 1,797 handwritten digits, one channel of 8x8, bundled with that package.

    The split is fixed: within each class, every fifth digit in the published order is a test
    image (355), the others are training images (1,442).
    """

    def prepare(self) -> None:
        return

    def load(self) -> Splits:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        # The published levels are 0-16.
        images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(bunch.target).long()
        order = torch.stack([(labels[: i + 1] == labels[i]).sum() for i in range(len(labels))])
        test = order % 5 == 0
        return Splits(
            ImageSet(images[~test], labels[~test]),
            ImageSet(images[test], labels[test]),
            tuple(str(digit) for digit in range(10)),
        )
