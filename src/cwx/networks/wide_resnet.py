"""WideResNet for small images, after Zagoruyko and Komodakis (2016)."""

from typing import Annotated

from torch import Tensor, nn

from cwx.networks.resnet import Norm, convolution


class WideBlock(nn.Module):
    """x + residual(ReLU(norm(x))), with two 3x3 convolutions; norm and ReLU precede each.

    Input ``[n, in_channels, h, w]``; output ``[n, out_channels, ⌈h / stride⌉, ⌈w / stride⌉]``.
    If the shapes differ, a 1x1 convolution of ReLU(norm(x)) replaces x (Figure 1a, with the
    pre-activation of §2; He et al., Identity Mappings in Deep Residual Networks, 2016).
    """

    def __init__(self, *, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.active = nn.Sequential(norm(in_channels), nn.ReLU())
        self.residual = nn.Sequential(
            *(convolution(in_channels, out_channels, 3, stride), norm(out_channels), nn.ReLU()),
            convolution(out_channels, out_channels, 3),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = convolution(in_channels, out_channels, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        activated = self.active(features)
        skip = features if self.shortcut is None else self.shortcut(activated)
        return self.residual(activated) + skip  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """A 3x3 convolution, three stages of wide blocks, global average and one linear layer.

    Input ``[n, in_channels, *image_size]``, normalised; output logits ``[n, num_classes]``.
    The stages have 16, 32 and 64 times `widening` filters (Table 1); the second and the third
    halve height and width, rounding up. No dropout. Weights start from torch's default
    initialisation.

    Args:
        depth: the number of convolutions, 4 + 6 · blocks per stage: two per block, one in the stem
            and one 1x1 convolution per stage.
        widening: the paper's factor k.
        norm: builds a normalisation layer from its number of channels.

    Raises:
        ValueError: `depth` is not 4 + 6 · n, or the input of the last stage would be less than
            one pixel.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        depth: Annotated[int, ">= 1, <= 10000"],
        widening: Annotated[int, ">= 1"],
        norm: Norm,
    ) -> None:
        super().__init__()
        blocks_per_stage, remainder = divmod(depth - 4, 6)
        if remainder or blocks_per_stage < 1:
            raise ValueError(
                f"the depth of a WideResNet is 4 + 6 · blocks per stage, not {depth}: "
                "use 10, 16, 22, 28 …"
            )
        if min(image_size) < 4:
            raise ValueError(
                f"a WideResNet halves {image_size[0]}x{image_size[1]} images twice, to less than "
                "a pixel: use images of at least 4x4"
            )
        self.stem = convolution(in_channels, 16, 3)
        blocks: list[nn.Module] = []
        channels = 16
        for stage in range(3):
            for index in range(blocks_per_stage):
                width, stride = 16 * widening << stage, 2 if stage and not index else 1
                blocks.append(
                    WideBlock(in_channels=channels, out_channels=width, stride=stride, norm=norm)
                )
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.active = nn.Sequential(norm(channels), nn.ReLU())
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.active(self.blocks(self.stem(images)))
        return self.classifier(features.mean((2, 3)))  # type: ignore[no-any-return]
