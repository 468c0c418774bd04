"""A fully connected classifier: an evaluation network without convolutions."""

import math
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """`depth` hidden layers of `width` units with ReLU, then a linear classifier.

    Input ``[n, in_channels, *image_size]``, normalised; output logits ``[n, num_classes]``.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        depth: Annotated[int, ">= 1, <= 1000"],
        width: Annotated[int, ">= 1"],
    ) -> None:
        super().__init__()
        inputs = in_channels * math.prod(image_size)
        sizes = [inputs, *([width] * depth)]
        hidden = [
            layer
            for fan_in, fan_out in pairwise(sizes)
            for layer in (nn.Linear(fan_in, fan_out), nn.ReLU())
        ]
        self.layers = nn.Sequential(*hidden, nn.Linear(sizes[-1], num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(torch.flatten(images, 1))  # type: ignore[no-any-return]
