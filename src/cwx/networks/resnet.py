"""ResNet for small images, after He, Zhang, Ren and Sun (2016)."""

from collections.abc import Callable
from typing import Annotated, Protocol

from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


class ResidualBlock(nn.Module):
    """ReLU(residual(x) + x); if the shapes differ, a 1x1 convolution with norm maps x.

    Input ``[n, in_channels, h, w]``; output ``[n, out_channels, ⌈h / stride⌉, ⌈w / stride⌉]``,
    the shape of `residual`'s output (He et al., Eq 1 and 2; option B of §4.1).
    """

    def __init__(
        self, residual: nn.Module, *, in_channels: int, out_channels: int, stride: int, norm: Norm
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.residual = residual
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                convolution(in_channels, out_channels, 1, stride), norm(out_channels)
            )
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        return self.relu(self.residual(features) + self.shortcut(features))  # type: ignore[no-any-return]


class BlockFactory(Protocol):
    """Builds one block: `basic_block` or `bottleneck`."""

    def __call__(
        self, *, in_channels: int, width: int, stride: int, norm: Norm
    ) -> ResidualBlock: ...


def basic_block(*, in_channels: int, width: int, stride: int, norm: Norm) -> ResidualBlock:
    """Two 3x3 convolutions to `width` channels (He et al., Figure 5 left)."""
    residual = nn.Sequential(
        *(convolution(in_channels, width, 3, stride), norm(width), nn.ReLU()),
        *(convolution(width, width, 3), norm(width)),
    )
    return ResidualBlock(
        residual, in_channels=in_channels, out_channels=width, stride=stride, norm=norm
    )


def bottleneck(*, in_channels: int, width: int, stride: int, norm: Norm) -> ResidualBlock:
    """1x1, 3x3 and 1x1 convolutions through `width` to 4 `width` channels (Figure 5 right).

    The 3x3 convolution has the stride, as in torchvision: in the paper the first 1x1 convolution
    has it and skips three of four positions.
    """
    residual = nn.Sequential(
        *(convolution(in_channels, width, 1), norm(width), nn.ReLU()),
        *(convolution(width, width, 3, stride), norm(width), nn.ReLU()),
        *(convolution(width, 4 * width, 1), norm(4 * width)),
    )
    return ResidualBlock(
        residual, in_channels=in_channels, out_channels=4 * width, stride=stride, norm=norm
    )


class ResNet(nn.Module):
    """A 3x3 convolution, stages of residual blocks, global average and one linear layer.

    Input ``[n, in_channels, *image_size]``, normalised; output logits ``[n, num_classes]``.
    The stages are those for ImageNet (Table 1). The stem is that for CIFAR-10 (§4.2), which keeps
    the resolution: stride 1, no max pooling. Weights start from torch's default initialisation.

    Args:
        stages: the number of blocks of each stage; each stage but the first halves height and
            width, rounding up, and doubles the channels.
        block: builds a block from its input channels, its width, its stride and `norm`.
        width: filters of the stem and width of the first stage.
        norm: builds a normalisation layer from its number of channels.

    Raises:
        ValueError: the input of the last stage would be less than one pixel.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        stages: Annotated[list[Annotated[int, ">= 1, <= 1000"]], "not empty"],
        block: BlockFactory,
        width: Annotated[int, ">= 1"],
        norm: Norm,
    ) -> None:
        super().__init__()
        if min(image_size) < 2 ** (len(stages) - 1):
            raise ValueError(
                f"a ResNet of {len(stages)} stages halves {image_size[0]}x{image_size[1]} images "
                f"to less than a pixel: use at most {min(image_size).bit_length()} stages"
            )
        self.stem = nn.Sequential(convolution(in_channels, width, 3), norm(width), nn.ReLU())
        blocks: list[ResidualBlock] = []
        channels = width
        for stage, depth in enumerate(stages):
            for index in range(depth):
                stride = 2 if stage and not index else 1
                blocks.append(
                    block(in_channels=channels, width=width << stage, stride=stride, norm=norm)
                )
                channels = blocks[-1].out_channels
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.blocks(self.stem(images)).mean((2, 3)))  # type: ignore[no-any-return]


def convolution(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps height and width at stride 1.

    It has no bias: the normalisation that follows has one.
    """
    return nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
