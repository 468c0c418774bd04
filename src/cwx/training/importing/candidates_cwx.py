"""Candidates among cwx's own networks, with the widths and depths of the shapes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

from cwx.networks.alexnet import AlexNet
from cwx.networks.convnet import ConvNet, instance_norm
from cwx.networks.densenet import DenseNet
from cwx.networks.mlp import MLP
from cwx.networks.resnet import ResNet, basic_block, bottleneck
from cwx.networks.vgg import VGG
from cwx.networks.wide_resnet import WideResNet
from cwx.training.importing.candidates import (
    Architecture,
    Family,
    Shapes,
    sequential_layers,
    square_root,
)
from cwx.training.importing.candidates_external import count
from cwx.training.importing.candidates_published import length, vgg_blocks, vgg_name

_SIZES = (28, 32, 64, 96, 128, 160, 224, 256)
_NORMS: dict[Any, Any] = {
    nn.BatchNorm2d: "torch.nn.BatchNorm2d",
    instance_norm: "cwx.networks.convnet.instance_norm",
}


def _architecture(
    description: str, choice: str, target: Any, values: Mapping[str, Any], **properties: Any
) -> Architecture:
    """The network of ``conf/network/{choice}.yaml`` with these values.

    Args:
        values: of the settings of the network; functions are passed by the name in `_TARGETS`.
    """
    settings: dict[str, Any] = {"network": choice}
    for name, value in values.items():
        is_part = name in ("norm", "block") and value is not None
        path = f"network.{name}._target_" if is_part else f"network.{name}"
        settings[path] = _TARGETS[value] if is_part else value
    return Architecture(
        description=f"{description}, {count(properties['classes'], 'class')}",
        settings=settings,
        factory=partial(target, **values),
        **properties,
    )


_TARGETS = {
    **_NORMS,
    basic_block: "cwx.networks.resnet.basic_block",
    bottleneck: "cwx.networks.resnet.bottleneck",
}


def _norm(shapes: Shapes, name: str) -> Any:
    """The norm whose tensors begin with `name`."""
    if f"{name}.weight" not in shapes or len(shapes[f"{name}.weight"]) != 1:
        return None
    return nn.BatchNorm2d if f"{name}.running_mean" in shapes else instance_norm


def _resnets(shapes: Shapes) -> Iterator[list[Architecture]]:
    widths = [
        shapes[f"blocks.{i}.residual.0.weight"][0]
        for i in range(length(shapes, "blocks.", ".residual.0.weight"))
    ]
    stages = list(Counter(widths).values())
    is_bottleneck = "blocks.0.residual.6.weight" in shapes
    choice = "resnet50" if is_bottleneck else "resnet18"
    values = {
        "stages": stages,
        "block": bottleneck if is_bottleneck else basic_block,
        "width": widths[0],
        "norm": _norm(shapes, "stem.1"),
    }
    classes = shapes["classifier.weight"][0]
    depth = 2 + (3 if is_bottleneck else 2) * len(widths)
    yield [
        _architecture(
            f"cwx's ResNet-{depth} of width {widths[0]}", choice, ResNet, values,
            classes=classes, channels=shapes["stem.0.weight"][1], likely_size=32,
        )
    ]  # fmt: skip


def _wide_resnets(shapes: Shapes) -> Iterator[list[Architecture]]:
    blocks = length(shapes, "blocks.", ".residual.0.weight")
    values = {
        "depth": 4 + 2 * blocks,
        "widening": shapes["blocks.0.residual.0.weight"][0] // 16,
        "norm": _norm(shapes, "active.0"),
    }
    yield [
        _architecture(
            f"cwx's WideResNet-{values['depth']}-{values['widening']}",
            "wide_resnet28_10", WideResNet, values,
            classes=shapes["classifier.weight"][0], channels=shapes["stem.weight"][1],
            likely_size=32,
        )
    ]  # fmt: skip


def _vggs(shapes: Shapes) -> Iterator[list[Architecture]]:
    blocks, has_norm = vgg_blocks(shapes)
    values = {"blocks": blocks, "norm": _norm(shapes, "features.1") if has_norm else None}
    yield [
        _architecture(
            f"{vgg_name(blocks, has_norm=has_norm)} for small images", "vgg16", VGG, values,
            classes=shapes["classifier.weight"][0], channels=shapes["features.0.weight"][1],
            likely_size=max(32, 1 << len(blocks)),
        )
    ]  # fmt: skip


def _convnets(shapes: Shapes) -> Iterator[list[Architecture]]:
    blocks, _ = vgg_blocks(shapes)
    depth, width = len(blocks), blocks[0][0]
    classes, features = shapes["classifier.weight"]
    norm = _norm(shapes, "features.1")
    size = _size_before(square_root(features // width), depth)
    values = {"depth": depth, "width": width, "norm": norm}
    yield [
        _architecture(
            f"ConvNet of {depth} blocks of width {width}", "convnet", ConvNet, values,
            classes=classes, channels=shapes["features.0.weight"][1], image_size=size,
        )
    ]  # fmt: skip


def _size_before(side: int, halvings: int) -> int:
    """The side of the images whose maps have `side` positions after halvings, rounded down."""
    sizes = [size for size in _SIZES if size >> halvings == side]
    return next((s for s in sizes if s == 32), sizes[0] if sizes else side << halvings)


def _alexnets(shapes: Shapes) -> Iterator[list[Architecture]]:
    width = shapes["features.0.weight"][0]
    classes, features = shapes["classifier.weight"]
    size = _size_before(square_root(features // (width * 3 // 2)), 3)
    yield [
        _architecture(
            f"AlexNet for small images, of width {width}", "alexnet", AlexNet, {"width": width},
            classes=classes, channels=shapes["features.0.weight"][1], image_size=size,
        )
    ]  # fmt: skip


def _densenets(shapes: Shapes) -> Iterator[list[Architecture]]:
    growth = shapes["features.0.weight"][0] // 2
    layers = {
        int(n.split(".")[1])
        for n in shapes
        if n.startswith("features.") and n.endswith(".appended.0.weight") and len(n) < 40
    }
    if len(layers) > 400:
        raise ValueError(f"{len(layers)} layers")
    blocks: list[int] = []
    for index in sorted(layers):
        if index - 1 not in layers:
            blocks.append(0)
        blocks[-1] += 1
    norm = _norm(shapes, "features.1.appended.0")
    yield [
        _architecture(
            f"cwx's DenseNet-{2 * len(layers) + len(blocks) + 1}", "densenet121", DenseNet,
            {"blocks": blocks, "growth": growth, "norm": norm},
            classes=shapes["classifier.weight"][0], channels=shapes["features.0.weight"][1],
            likely_size=32,
        )
    ]  # fmt: skip


def _mlps(shapes: Shapes) -> Iterator[list[Architecture]]:
    layers = sequential_layers(shapes, "layers.")
    width, inputs = shapes["layers.0.weight"]
    channels, size = _image(inputs)
    values = {"depth": len(layers) - 1, "width": width}
    if len(layers) > 200:
        raise ValueError(f"{len(layers)} layers")
    yield [
        _architecture(
            f"MLP of {len(layers) - 1} hidden layers of {width}", "mlp", MLP, values,
            classes=shapes[f"layers.{layers[-1]}.weight"][0], channels=channels, image_size=size,
        )
    ]  # fmt: skip


def _image(inputs: int) -> tuple[int, int]:
    """(channels, side) of square images of that many values, colour before grey."""
    for channels in (3, 1, 2, 4):
        try:
            return channels, square_root(inputs // channels if inputs % channels == 0 else 0)
        except ValueError:
            continue
    raise ValueError(f"{inputs} values are no square image")


_CLASSIFIER = "classifier.weight"
FAMILIES = (
    Family(names=("blocks.0.residual.0.weight", "stem.0.weight", _CLASSIFIER), candidates=_resnets),
    Family(
        names=("blocks.0.active.0.weight", "stem.weight", _CLASSIFIER), candidates=_wide_resnets
    ),
    Family(names=("features.0.weight", _CLASSIFIER), candidates=_vggs),
    Family(names=("features.0.weight", _CLASSIFIER), candidates=_convnets),
    Family(names=("features.0.weight", "features.10.weight", _CLASSIFIER), candidates=_alexnets),
    Family(names=("features.1.appended.0.weight", _CLASSIFIER), candidates=_densenets),
    Family(names=("layers.0.weight", "layers.2.weight"), candidates=_mlps),
)
