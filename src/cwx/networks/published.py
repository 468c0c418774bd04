"""Residual networks under the tensor names of checkpoints that are published for CIFAR.

The names, not the networks, differ from `cwx.networks.resnet` and `cwx.networks.wide_resnet`: a
checkpoint is found by them. No network normalises its input.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from cwx.networks.resnet import convolution

Width = Annotated[int, ">= 1"]
Stages = Annotated[list[Annotated[int, ">= 1, <= 1000"]], "not empty"]


def _convolutions(
    in_channels: int, width: int, stride: int, *, bottleneck: bool
) -> list[tuple[int, int, int, int]]:
    """(in, out, size, stride) of each convolution of a residual block (He et al., Figure 5)."""
    if not bottleneck:
        return [(in_channels, width, 3, stride), (width, width, 3, 1)]
    return [(in_channels, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]


class Block(nn.Module):
    """ReLU(residual(x) + x): convolutions ``conv1``, ``bn1``, …; names as in pytorch-cifar.

    Args:
        shortcut: the name of the 1x1 convolution with norm that maps x if the shapes differ;
            ``padding``: no convolution, but every second position, and channels of zeros
            (option A of He et al., §4.2).
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, *, bottleneck: bool, shortcut: str
    ) -> None:
        super().__init__()
        sizes = _convolutions(in_channels, width, stride, bottleneck=bottleneck)
        for index, (inputs, outputs, size, step) in enumerate(sizes, 1):
            self.add_module(f"conv{index}", convolution(inputs, outputs, size, step))
            self.add_module(f"bn{index}", nn.BatchNorm2d(outputs))
        self.depth, self.stride, self.out_channels = len(sizes), stride, sizes[-1][1]
        self.added_channels = self.out_channels - in_channels
        self.mapping = shortcut if stride != 1 or self.added_channels else ""
        if self.mapping and self.mapping != "padding":
            mapped = convolution(in_channels, self.out_channels, 1, stride)
            self.add_module(self.mapping, nn.Sequential(mapped, nn.BatchNorm2d(self.out_channels)))

    def forward(self, features: Tensor) -> Tensor:
        residual = features
        for index in range(1, self.depth + 1):
            convolved = self.get_submodule(f"conv{index}")(residual)
            residual = self.get_submodule(f"bn{index}")(convolved)
            if index < self.depth:
                residual = F.relu(residual)
        return F.relu(residual + self._skip(features))

    def _skip(self, features: Tensor) -> Tensor:
        if not self.mapping:
            return features
        if self.mapping != "padding":
            return self.get_submodule(self.mapping)(features)  # type: ignore[no-any-return]
        before = self.added_channels // 2
        after = self.added_channels - before
        strided = features[:, :, :: self.stride, :: self.stride]
        return F.pad(strided, (0, 0, 0, 0, before, after))


class PreActBlock(nn.Module):
    """residual(x) + x, with norm and ReLU before each convolution: ``bn1``, ``conv1``, ….

    If the shapes differ, a 1x1 convolution ``shortcut.0`` of ReLU(norm(x)) replaces x (He et al.,
    Identity Mappings in Deep Residual Networks, 2016).
    """

    def __init__(self, in_channels: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        sizes = _convolutions(in_channels, width, stride, bottleneck=bottleneck)
        for index, (inputs, outputs, size, step) in enumerate(sizes, 1):
            self.add_module(f"bn{index}", nn.BatchNorm2d(inputs))
            self.add_module(f"conv{index}", convolution(inputs, outputs, size, step))
        self.depth, self.out_channels = len(sizes), sizes[-1][1]
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != self.out_channels:
            self.shortcut = nn.Sequential(convolution(in_channels, self.out_channels, 1, stride))

    def forward(self, features: Tensor) -> Tensor:
        skip = residual = features
        for index in range(1, self.depth + 1):
            active = F.relu(self.get_submodule(f"bn{index}")(residual))
            if index == 1 and self.shortcut is not None:
                skip = self.shortcut(active)
            residual = self.get_submodule(f"conv{index}")(active)
        return residual + skip


def _add_stages(
    network: nn.Module,
    width: int,
    stages: Sequence[int],
    build: Callable[[int, int, int], Block | PreActBlock],
) -> int:
    """Add ``layer1``, ``layer2``, …, and return the output channels of the last.

    Args:
        width: of the first stage and channels of its input; each next stage doubles the width, and
            halves height and width of the features.
        stages: the number of blocks of each stage.
        build: a block, from its input channels, width and stride.
    """
    channels = width
    for stage, depth in enumerate(stages):
        blocks: list[nn.Module] = []
        for index in range(depth):
            block = build(channels, width << stage, 2 if stage and not index else 1)
            channels = block.out_channels
            blocks.append(block)
        network.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
    return channels


class ResNet(nn.Module):
    """ResNet with ``conv1, bn1, layer1.0.conv1, …, linear``, the names of pytorch-cifar.

    Input ``[n, in_channels, h, w]``; output logits ``[n, num_classes]``. The stem is that for
    CIFAR-10 (He et al., §4.2) by default. Each stage but the first halves height and width.

    Args:
        stages: the number of blocks of each stage.
        width: filters of the stem and width of the first stage; each next stage doubles it.
        bottleneck: blocks of three convolutions instead of two.
        shortcut: the name of the convolution of a shortcut, see `Block`.
        head: the name of the linear layer.
        stem_size, stem_stride, max_pooling: of the first convolution, and whether a 3x3 max
            pooling of stride 2 follows it.
        grid: the average pooling leaves grid x grid positions, each with weights of its own.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        stages: Stages,
        width: Width = 64,
        bottleneck: bool = False,
        shortcut: Literal["shortcut", "downsample", "padding"] = "shortcut",
        head: Literal["linear", "fc"] = "linear",
        stem_size: Annotated[int, ">= 1"] = 3,
        stem_stride: Annotated[int, ">= 1"] = 1,
        max_pooling: bool = False,
        grid: Annotated[int, ">= 1"] = 1,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, width, stem_size, stem_stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if max_pooling else nn.Identity()
        channels = _add_stages(
            self, width, stages, partial(Block, bottleneck=bottleneck, shortcut=shortcut)
        )
        self.depth, self.head, self.grid = len(stages), head, grid
        self.add_module(head, nn.Linear(channels * grid * grid, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        features = self.pool(F.relu(self.bn1(self.conv1(images))))
        for stage in range(1, self.depth + 1):
            features = self.get_submodule(f"layer{stage}")(features)
        pooled = F.adaptive_avg_pool2d(features, self.grid).flatten(1)
        return self.get_submodule(self.head)(pooled)  # type: ignore[no-any-return]


class PreActResNet(nn.Module):
    """ResNet of pre-activation blocks: ``conv1, layer1.0.bn1, …, linear``, as in pytorch-cifar.

    Input ``[n, in_channels, h, w]``; output logits ``[n, num_classes]``. The stem is a 3x3
    convolution of stride 1 without normalisation.

    Args:
        stages, width, bottleneck, head, grid: as in `ResNet`.
        final_norm: whether a norm ``bn`` and ReLU follow the last block. Many published
            implementations leave it out, against the paper.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        stages: Stages,
        width: Width = 64,
        bottleneck: bool = False,
        final_norm: bool = False,
        head: Literal["linear", "fc"] = "linear",
        grid: Annotated[int, ">= 1"] = 1,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, width, 3)
        channels = _add_stages(self, width, stages, partial(PreActBlock, bottleneck=bottleneck))
        self.bn = nn.BatchNorm2d(channels) if final_norm else None
        self.depth, self.head, self.grid = len(stages), head, grid
        self.add_module(head, nn.Linear(channels * grid * grid, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv1(images)
        for stage in range(1, self.depth + 1):
            features = self.get_submodule(f"layer{stage}")(features)
        if self.bn is not None:
            features = F.relu(self.bn(features))
        pooled = F.adaptive_avg_pool2d(features, self.grid).flatten(1)
        return self.get_submodule(self.head)(pooled)  # type: ignore[no-any-return]


class WideBlock(nn.Module):
    """x + residual(x) of a WideResNet: ``bn1, conv1, bn2, conv2`` and ``convShortcut``."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = convolution(in_channels, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.convShortcut: nn.Module | None = None
        if in_channels != width:
            self.convShortcut = convolution(in_channels, width, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        active = F.relu(self.bn1(features))
        skip = features if self.convShortcut is None else self.convShortcut(active)
        residual = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + skip  # type: ignore[no-any-return]


class WideStage(nn.Module):
    """The blocks of one stage, as ``layer``."""

    def __init__(self, in_channels: int, width: int, stride: int, depth: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            WideBlock(in_channels, width, stride),
            *(WideBlock(width, width, 1) for _ in range(depth - 1)),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(features)  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """WideResNet with ``conv1, block1.layer.0.bn1, …, bn1, fc``, the names of most checkpoints.

    Input ``[n, in_channels, h, w]``; output logits ``[n, num_classes]``. No dropout: it does not
    change a trained network.

    Args:
        depth: the number of convolutions, 4 + 6 · blocks per stage.
        widening: the stages have 16, 32 and 64 times as many filters.
        unused_stage: whether a copy of the first stage, ``sub_block1``, is there that nothing
            runs, as in the networks of TRADES (Zhang et al., 2019).

    Raises:
        ValueError: `depth` is not 4 + 6 · n.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        depth: Annotated[int, ">= 1, <= 10000"],
        widening: Annotated[int, ">= 1"],
        unused_stage: bool = False,
    ) -> None:
        super().__init__()
        blocks, remainder = divmod(depth - 4, 6)
        if remainder or blocks < 1:
            raise ValueError(
                f"the depth of a WideResNet is 4 + 6 · blocks per stage, not {depth}: "
                "use 10, 16, 22, 28 …"
            )
        widths = [16, 16 * widening, 32 * widening, 64 * widening]
        self.conv1 = convolution(in_channels, widths[0], 3)
        self.block1 = WideStage(widths[0], widths[1], 1, blocks)
        if unused_stage:
            self.sub_block1 = WideStage(widths[0], widths[1], 1, blocks)
        self.block2 = WideStage(widths[1], widths[2], 2, blocks)
        self.block3 = WideStage(widths[2], widths[3], 2, blocks)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.block3(self.block2(self.block1(self.conv1(images))))
        return self.fc(F.relu(self.bn1(features)).mean((2, 3)))  # type: ignore[no-any-return]
