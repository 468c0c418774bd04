"""Candidates among the networks of published CIFAR checkpoints: ResNet, WideResNet, VGG."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from cwx.networks import published, published_vgg
from cwx.training.importing.candidates import (
    Architecture,
    Family,
    Shapes,
    sequential_layers,
    square_root,
)
from cwx.training.importing.candidates_external import external_architecture

_MODULE = "cwx.networks.published"
# A longer network is not a published one, and takes seconds to build.
_MOST_BLOCKS = 400
_DEPTHS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "18",
    (False, (3, 4, 6, 3)): "34",
    (True, (3, 4, 6, 3)): "50",
    (True, (3, 4, 23, 3)): "101",
    (True, (3, 8, 36, 3)): "152",
}
_VGG_DEPTHS: dict[tuple[int, ...], int] = {
    (1, 1, 2, 2, 2): 11,
    (2, 2, 2, 2, 2): 13,
    (2, 2, 3, 3, 3): 16,
    (2, 2, 4, 4, 4): 19,
}


def block_counts(shapes: Shapes) -> list[int]:
    """The number of residual blocks of ``layer1``, ``layer2``, …."""
    stages: list[int] = []
    while blocks := length(shapes, f"layer{len(stages) + 1}.", ".conv1.weight"):
        stages.append(blocks)
    return stages


def length(shapes: Shapes, start: str, end: str) -> int:
    """How many of the names start0end, start1end, … follow each other."""
    return next(index for index in count() if f"{start}{index}{end}" not in shapes)


def _residual(shapes: Shapes) -> tuple[dict[str, Any], dict[str, int], str]:
    """Arguments that ResNet and PreActResNet share, the properties of the data, and a depth."""
    stages, is_bottleneck = block_counts(shapes), "layer1.0.conv3.weight" in shapes
    if sum(stages) > _MOST_BLOCKS:
        raise ValueError(f"{sum(stages)} blocks")
    width, channels = shapes["layer1.0.conv1.weight"][0], shapes["conv1.weight"][1]
    head = "linear" if "linear.weight" in shapes else "fc"
    classes, features = shapes[f"{head}.weight"]
    grid = square_root(features // (width << len(stages) - 1) // (4 if is_bottleneck else 1))
    arguments = {
        "in_channels": channels,
        "num_classes": classes,
        "stages": stages,
        "width": width,
        "bottleneck": is_bottleneck,
        "head": head,
        "grid": grid,
    }
    data = {"classes": classes, "channels": channels, "likely_size": 32 * grid}
    if grid > 1:
        # The published networks pool the last maps of 32x32 images to one position.
        data["image_size"] = 32 * grid
    convolutions = 2 + (3 if is_bottleneck else 2) * sum(stages)
    depth = _DEPTHS.get((is_bottleneck, tuple(stages)), f"{convolutions}")
    return arguments, data, depth + ("" if width in (16, 64) else f" of width {width}")


def _resnets(shapes: Shapes) -> Iterator[list[Architecture]]:
    arguments, data, depth = _residual(shapes)
    stage = 1 if arguments["bottleneck"] else 2
    names = [n for n in ("shortcut", "downsample") if f"layer{stage}.0.{n}.0.weight" in shapes]
    arguments["shortcut"] = shortcut = names[0] if names else "padding"
    is_torchvision = shortcut == "downsample" and arguments["head"] == "fc"
    if is_torchvision and depth in _DEPTHS.values() and arguments["width"] == 64:
        raise ValueError("a network of torchvision")
    size = shapes["conv1.weight"][2]
    stems: list[dict[str, Any]] = [{}, {"max_pooling": True}]
    if size != 3:
        large = {"stem_size": size, "stem_stride": 2}
        stems = [{**large, "max_pooling": True}, large, {"stem_size": size}]
    layout = "torchvision" if is_torchvision else "CIFAR checkpoints"
    yield [
        external_architecture(
            f"ResNet-{depth} with the names of {layout}{stem_text(size, **stem)}",
            published.ResNet, f"{_MODULE}.ResNet", {**arguments, **stem}, **data,
        )
        for stem in stems
    ]  # fmt: skip


def stem_text(size: int, *, max_pooling: bool = False, stem_stride: int = 1, **_: Any) -> str:
    """A stem in words; the plain one for small images is not worth a word."""
    pooling = " and max pooling" if max_pooling else ""
    return f", {size}x{size} stem of stride {stem_stride}{pooling}" if size != 3 or pooling else ""


def _preact_resnets(shapes: Shapes) -> Iterator[list[Architecture]]:
    if "bn1.weight" in shapes:
        raise ValueError("a norm after the first convolution")
    arguments, data, depth = _residual(shapes)
    arguments["final_norm"] = has_norm = "bn.weight" in shapes
    norm = " with a final norm" if has_norm else ""
    target = published.PreActResNet
    yield [
        external_architecture(
            f"PreActResNet-{depth}{norm}", target, f"{_MODULE}.PreActResNet", arguments, **data
        )
    ]


def _wide_resnets(shapes: Shapes) -> Iterator[list[Architecture]]:
    blocks = length(shapes, "block1.layer.", ".conv1.weight")
    if blocks > _MOST_BLOCKS:
        raise ValueError(f"{blocks} blocks")
    depth, widening = 4 + 6 * blocks, shapes["block1.layer.0.conv1.weight"][0] // 16
    classes, channels = shapes["fc.weight"][0], shapes["conv1.weight"][1]
    arguments = {
        "in_channels": channels,
        "num_classes": classes,
        "depth": depth,
        "widening": widening,
        "unused_stage": "sub_block1.layer.0.conv1.weight" in shapes,
    }
    data = {"classes": classes, "channels": channels, "likely_size": 32}
    name, path = f"WideResNet-{depth}-{widening}", f"{_MODULE}.WideResNet"
    yield [external_architecture(name, published.WideResNet, path, arguments, **data)]


def vgg_blocks(shapes: Shapes) -> tuple[list[list[int]], bool]:
    """The filters of each convolution of ``features``, by block, and whether norms follow them.

    A convolution has one layer without weights after it (ReLU), or two at the end of a block.

    Raises:
        ValueError: the layers do not follow each other in that way.
    """
    layers = sequential_layers(shapes, "features.")
    convolutions = [i for i in layers if len(shapes[f"features.{i}.weight"]) == 4]
    has_norm = len(layers) > len(convolutions)
    if len(convolutions) > _MOST_BLOCKS:
        raise ValueError(f"{len(convolutions)} convolutions")
    blocks: list[list[int]] = [[]]
    for last, index in zip([None, *convolutions], convolutions, strict=False):
        gap = 1 if last is None else index - last - 1 - has_norm
        if gap not in (1, 2):
            raise ValueError(f"{gap} layers without weights between two convolutions")
        if gap == 2:
            blocks.append([])
        blocks[-1].append(shapes[f"features.{index}.weight"][0])
    return blocks, has_norm


def _vggs(shapes: Shapes) -> Iterator[list[Architecture]]:
    blocks, has_norm = vgg_blocks(shapes)
    linear = sequential_layers(shapes, "classifier.")
    names = [f"classifier.{i}.weight" for i in linear] if linear else ["classifier.weight"]
    layers = [shapes[name] for name in names]
    grid = square_root(layers[0][1] // blocks[-1][-1])
    hidden = [outputs for outputs, _ in layers[:-1]]
    if not linear and grid == 1:
        raise ValueError("a network of network=vgg16")
    if hidden == [4096, 4096] and linear == [0, 3, 6] and is_usual(blocks) and grid == 7:
        raise ValueError("a network of torchvision")
    classes, channels = layers[-1][0], shapes["features.0.weight"][1]
    arguments: dict[str, Any] = {
        "in_channels": channels,
        "num_classes": classes,
        "blocks": blocks,
        "batch_norm": has_norm,
        "grid": grid,
        "hidden": hidden,
        "linear": linear or None,
    }
    name = f"{vgg_name(blocks, has_norm=has_norm)}, {len(layers)} linear on {grid}x{grid} positions"
    target, path = published_vgg.VGG, "cwx.networks.published_vgg.VGG"
    data = {"classes": classes, "channels": channels, "likely_size": grid << len(blocks)}
    yield [external_architecture(name, target, path, arguments, **data)]


def is_usual(blocks: list[list[int]]) -> bool:
    """Whether these are the filters of VGG-11, 13, 16 or 19."""
    widths = [64, 128, 256, 512, 512]
    return tuple(map(len, blocks)) in _VGG_DEPTHS and all(
        set(block) == {width} for block, width in zip(blocks, widths, strict=True)
    )


def vgg_name(blocks: list[list[int]], *, has_norm: bool) -> str:
    """Such as VGG-16 with batch norm."""
    depth = _VGG_DEPTHS.get(tuple(map(len, blocks)), 1 + sum(map(len, blocks)))
    return f"VGG-{depth}{' with batch norm' if has_norm else ''}"


FAMILIES = (
    Family(names=("layer1.0.conv1.weight", "conv1.weight", "bn1.weight"), candidates=_resnets),
    Family(
        names=("layer1.0.conv1.weight", "conv1.weight", "layer1.0.bn1.weight"),
        candidates=_preact_resnets,
    ),
    Family(names=("block1.layer.0.bn1.weight", "conv1.weight"), candidates=_wide_resnets),
    Family(names=("features.0.weight",), candidates=_vggs),
)
