"""VGG for small images, after Simonyan and Zisserman (2015)."""

from collections.abc import Callable
from typing import Annotated

from torch import Tensor, nn

from cwx.networks.sizes import halve


class VGG(nn.Module):
    """Blocks of 3x3 convolutions that end in 2x2 max pooling; global average; one linear layer.

    Input ``[n, in_channels, *image_size]``, normalised; output logits ``[n, num_classes]``.
    Normalisation and ReLU follow each convolution. One linear layer replaces the paper's three
    for 7x7 positions (§2.1), because 32x32 images end in a single position. Weights start from
    torch's default initialisation.

    Args:
        blocks: the output channels of each convolution, by block (Table 1 of the paper).
        norm: builds a normalisation layer from its number of channels; ``None``: no normalisation.

    Raises:
        ValueError: the poolings leave less than one pixel.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        blocks: list[list[Annotated[int, ">= 1"]]],
        norm: Callable[[int], nn.Module] | None,
    ) -> None:
        super().__init__()
        halve(
            image_size,
            len(blocks),
            network=f"a VGG of {len(blocks)} blocks",
            remedy=f"use at most {min(image_size).bit_length() - 1} blocks",
        )
        layers: list[nn.Module] = []
        channels = in_channels
        for block in blocks:
            for filters in block:
                layers.append(nn.Conv2d(channels, filters, 3, padding=1))
                if norm is not None:
                    layers.append(norm(filters))
                layers.append(nn.ReLU())
                channels = filters
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean((2, 3)))  # type: ignore[no-any-return]
