"""The ConvNet of CWX §4, after Gidaris and Komodakis (2018)."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from cwx.networks.sizes import halve


def instance_norm(channels: int) -> nn.Module:
    """Instance normalisation with affine parameters: a GroupNorm with one group per channel."""
    return nn.GroupNorm(channels, channels)


class ConvNet(nn.Module):
    """`depth` blocks of 3x3 convolution, normalisation, ReLU and 2x2 average pooling; one linear.

    Input ``[n, in_channels, *image_size]``, normalised; output logits ``[n, num_classes]``.
    Args:
        depth: number of blocks.
        width: filters of each convolution.
        norm: builds a normalisation layer from its number of channels; ``None``: no normalisation.
        initialisation: of the weights of convolutions and the linear layer. ``torch``: uniform with
            standard deviation 1/√(3n) for n inputs, torch's default (Kaiming with a = √5). ``he``:
            normal with standard deviation √(2/n) and biases of 0 (He et al. 2015), √6 times as
            wide.

    Raises:
        ValueError: `depth` poolings leave less than one pixel.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        depth: Annotated[int, ">= 1, <= 1000"],
        width: Annotated[int, ">= 1"],
        norm: Callable[[int], nn.Module] | None,
        initialisation: Literal["torch", "he"] = "torch",
    ) -> None:
        super().__init__()
        pooled_height, pooled_width = halve(
            image_size,
            depth,
            network=f"a ConvNet of depth {depth}",
            remedy=f"use a depth of at most {min(image_size).bit_length() - 1}",
        )
        layers: list[nn.Module] = []
        for block in range(depth):
            layers.append(nn.Conv2d(width if block else in_channels, width, 3, padding=1))
            if norm is not None:
                layers.append(norm(width))
            layers += [nn.ReLU(), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers)
        channels = width if depth else in_channels
        self.classifier = nn.Linear(channels * pooled_height * pooled_width, num_classes)
        if initialisation == "he":
            self.apply(_initialise_he)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(images), 1))  # type: ignore[no-any-return]


def _initialise_he(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
