"""VGG under the tensor names of published checkpoints: ``features`` and ``classifier``."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F

from cwx.networks import vgg


class VGG(vgg.VGG):
    """A VGG whose classifier sees `grid` x `grid` positions, by one or more linear layers.

    Input ``[n, in_channels, h, w]``; output logits ``[n, num_classes]``. The names are those of
    torchvision and of pytorch-cifar.

    Args:
        blocks: the output channels of each convolution, by block.
        batch_norm: whether a BatchNorm2d follows each convolution.
        grid: side of the last maps, to which an average pooling brings them.
        hidden: units of the linear layers before the last, each with ReLU.
        linear: the position of each linear layer in ``classifier``, the last one's last; the places
            between them are of layers without weights. ``None``: ``classifier`` is one linear
            layer.

    Raises:
        ValueError: `hidden` and `linear` do not fit together.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        blocks: list[list[Annotated[int, ">= 1"]]],
        batch_norm: bool,
        grid: Annotated[int, ">= 1"] = 1,
        hidden: Sequence[Annotated[int, ">= 1"]] = (),
        linear: Sequence[Annotated[int, ">= 0, <= 100"]] | None = None,
    ) -> None:
        side = grid << len(blocks)
        super().__init__(
            in_channels=in_channels,
            image_size=(side, side),
            num_classes=num_classes,
            blocks=blocks,
            norm=nn.BatchNorm2d if batch_norm else None,
        )
        self.grid = grid
        sizes = [blocks[-1][-1] * grid * grid, *hidden, num_classes]
        positions = list(linear) if linear is not None else [0]
        gaps = [b - a for a, b in pairwise(positions)]
        if len(positions) != len(sizes) - 1 or any(gap < 2 for gap in gaps):
            raise ValueError(
                f"a classifier with {len(hidden)} hidden layers has {len(hidden) + 1} linear "
                f"layers with a ReLU between two, so that linear is not {positions}"
            )
        layers: list[nn.Module] = [nn.Identity() for _ in range(positions[-1] + 1)]
        for index, position in enumerate(positions):
            layers[position] = nn.Linear(sizes[index], sizes[index + 1])
            if position != positions[-1]:
                layers[position + 1] = nn.ReLU()
        self.classifier = layers[0] if linear is None else nn.Sequential(*layers)  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(self.features(images), self.grid)
        return self.classifier(pooled.flatten(1))  # type: ignore[no-any-return]
