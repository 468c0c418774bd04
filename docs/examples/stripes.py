"""Data of my own: three kinds of stripes, drawn."""

import torch

from cwx.data.splits import ImageSet, Splits


class Stripes:
    def __init__(self, *, side: int, per_class: int) -> None:
        self.side, self.per_class = side, per_class

    def prepare(self) -> None:
        """Here one process would download what is missing."""

    def load(self) -> Splits:
        return Splits(
            train=self.draw(self.per_class, seed=0),
            test=self.draw(self.per_class // 4, seed=1),
            classes=("across", "down", "slanting"),
        )

    def draw(self, per_class: int, seed: int) -> ImageSet:
        rows, columns = torch.meshgrid(*2 * [torch.arange(self.side)], indexing="ij")
        labels = torch.arange(3).repeat_interleave(per_class)
        generator = torch.Generator().manual_seed(seed)
        shifts = torch.randint(4, labels.shape, generator=generator)
        place = torch.stack([rows, columns, rows + columns])[labels] + shifts[:, None, None]
        noise = torch.randint(60, place.shape, generator=generator)
        # Bytes [n, channels, height, width] and a class index for each.
        images = torch.where(place % 4 < 2, 190, 0) + noise
        return ImageSet(images[:, None].to(torch.uint8), labels)
