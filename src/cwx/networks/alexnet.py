"""AlexNet for small images, after Krizhevsky, Sutskever and Hinton (2012)."""

from typing import Annotated

import torch
from torch import Tensor, nn


class AlexNet(nn.Module):
    """Five convolutions with ReLU, three 2x2 max poolings, one linear; no norm, no dropout.

    Input ``[n, in_channels, *image_size]``, normalised; output logits ``[n, num_classes]``.
    The form used to distil data sets of 32x32 images (Zhao, Mopuri and Bilen, 2021): the first
    convolution has 5x5 filters of stride 1, and one linear layer replaces three. Weights start
    from torch's default initialisation.

    Args:
        width: filters of the first convolution; the next four have ⌊3/2 width⌋, 2 width,
            ⌊3/2 width⌋ and ⌊3/2 width⌋.

    Raises:
        ValueError: three poolings leave less than one pixel.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        width: Annotated[int, ">= 1"],
    ) -> None:
        super().__init__()
        pooled_height, pooled_width = (side >> 3 for side in image_size)
        if min(pooled_height, pooled_width) < 1:
            raise ValueError(
                f"an AlexNet halves {image_size[0]}x{image_size[1]} images three times, to less "
                "than a pixel: use images of at least 8x8"
            )
        middle, wide = width * 3 // 2, width * 2
        self.features = nn.Sequential(
            *(nn.Conv2d(in_channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(width, middle, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(middle, wide, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(wide, middle, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(middle, middle, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Linear(middle * pooled_height * pooled_width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(images), 1))  # type: ignore[no-any-return]
