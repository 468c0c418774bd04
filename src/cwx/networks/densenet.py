"""DenseNet for small images, after Huang, Liu, van der Maaten and Weinberger (2017)."""

from typing import Annotated

import torch
from torch import Tensor, nn

from cwx.networks.resnet import Norm, convolution
from cwx.networks.sizes import halve


class DenseLayer(nn.Module):
    """Appends `growth` new channels, computed from all input channels, to the input.

    Input ``[n, in_channels, h, w]``; output ``[n, in_channels + growth, h, w]``. A 1x1
    convolution to 4 `growth` channels precedes the 3x3 one; normalisation and ReLU precede each
    (§3, bottleneck layers).
    """

    def __init__(self, *, in_channels: int, growth: int, norm: Norm) -> None:
        super().__init__()
        self.appended = nn.Sequential(
            *(norm(in_channels), nn.ReLU(), convolution(in_channels, 4 * growth, 1)),
            *(norm(4 * growth), nn.ReLU(), convolution(4 * growth, growth, 3)),
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, self.appended(features)], 1)


class DenseNet(nn.Module):
    """DenseNet-BC: a 3x3 convolution, blocks of dense layers, global average and one linear.

    Input ``[n, in_channels, *image_size]``, normalised; output logits ``[n, num_classes]``.
    The blocks are those for ImageNet (Table 1). The stem is that for CIFAR-10 (§3), which keeps the
    resolution: stride 1, no normalisation, no pooling. Between blocks, a 1x1 convolution halves
    the channels (compression 0.5) and a 2x2 average pooling halves height and width. Weights start
    from torch's default initialisation.

    Args:
        blocks: the number of layers of each block.
        growth: channels that each layer appends; the stem has 2 `growth`.
        norm: builds a normalisation layer from its number of channels.

    Raises:
        ValueError: the poolings leave less than one pixel.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        blocks: Annotated[list[Annotated[int, ">= 1, <= 1000"]], "not empty"],
        growth: Annotated[int, ">= 1"],
        norm: Norm,
    ) -> None:
        super().__init__()
        halve(
            image_size,
            len(blocks) - 1,
            network=f"a DenseNet of {len(blocks)} blocks",
            remedy=f"use at most {min(image_size).bit_length()} blocks",
        )
        channels = 2 * growth
        layers: list[nn.Module] = [convolution(in_channels, channels, 3)]
        for index, depth in enumerate(blocks):
            if index:
                layers += [norm(channels), nn.ReLU(), convolution(channels, channels // 2, 1)]
                layers.append(nn.AvgPool2d(2))
                channels //= 2
            for _ in range(depth):
                layers.append(DenseLayer(in_channels=channels, growth=growth, norm=norm))
                channels += growth
        self.features = nn.Sequential(*layers, norm(channels), nn.ReLU())
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean((2, 3)))  # type: ignore[no-any-return]
