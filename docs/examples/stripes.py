"""My own data: synthetic images of stripes in three directions."""

import torch

from cwx.data.splits import ImageSet, Splits


class Stripes:
    def __init__(self, *, side: int, per_class: int) -> None:
        self.side, self.per_class = side, per_class

    def prepare(self) -> None:
        """Called in one process: download missing files here."""

    def load(self) -> Splits:
        return Splits(
            train=self.make_images(self.per_class, seed=0),
            test=self.make_images(self.per_class // 4, seed=1),
            classes=("horizontal", "vertical", "diagonal"),
        )

    def make_images(self, per_class: int, seed: int) -> ImageSet:
        rows, columns = torch.meshgrid(*2 * [torch.arange(self.side)], indexing="ij")
        labels = torch.arange(3).repeat_interleave(per_class)
        generator = torch.Generator().manual_seed(seed)
        shifts = torch.randint(4, labels.shape, generator=generator)
        phases = torch.stack([rows, columns, rows + columns])[labels] + shifts[:, None, None]
        noise = torch.randint(60, phases.shape, generator=generator)
        # Bytes [n, channels, height, width], and n class indices.
        images = torch.where(phases % 4 < 2, 190, 0) + noise
        return ImageSet(images[:, None].to(torch.uint8), labels)
