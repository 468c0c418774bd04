"""The handwritten digits of scikit-learn."""

import torch

from cwx.data.splits import ImageSet, Splits


class Digits:
    """scikit-learn's 1,797 handwritten digits, one channel of 8x8, bundled with the package.

    The split is fixed: within each class, every fifth digit in the published order is a test
    image (355), the others are training images (1,442).
    """

    def prepare(self) -> None:
        return

    def load(self) -> Splits:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        # The published grey levels are 0-16.
        images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(bunch.target).long()
        rank = torch.stack([(labels[: i + 1] == labels[i]).sum() for i in range(len(labels))])
        test = rank % 5 == 0
        return Splits(
            ImageSet(images[~test], labels[~test]),
            ImageSet(images[test], labels[test]),
            tuple(str(digit) for digit in range(10)),
        )
