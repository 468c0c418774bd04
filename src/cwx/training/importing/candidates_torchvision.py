"""Candidates among torchvision's image classifiers, with usual changes of stem and head."""

import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from math import prod
from typing import Any

from torchvision import models

from cwx.networks.torchvision_variants import builder_names, torchvision_network
from cwx.training.importing.candidates import (
    Architecture,
    Family,
    Shapes,
    build_shapes,
    differences,
    square_root,
)
from cwx.training.importing.candidates_external import external_architecture
from cwx.training.importing.candidates_published import stem_text
from cwx.training.importing.checkpoint import COUNTER

# A number of classes that is no width of a layer, to find the tensors that depend on it.
_CLASSES = 1009
_MOST_BUILT = 4
_BUFFERS = ("running_mean", "running_var", COUNTER, "relative_position_index")
# Tensors that each member of a family has, by torchvision's module.
_NAMES = {
    "resnet": ("layer4.0.conv1.weight", "layer1.0.conv1.weight", "conv1.weight", "bn1.weight"),
    "vgg": ("features.0.weight", "classifier.3.weight"),
    "alexnet": ("features.0.weight", "features.10.weight", "classifier.4.weight"),
    "densenet": ("features.conv0.weight", "features.denseblock1.denselayer1.norm1.weight"),
    "efficientnet": ("features.0.0.weight", "features.1.0.block.0.0.weight"),
    "mobilenetv2": ("features.0.0.weight", "features.1.conv.0.0.weight"),
    "mobilenetv3": ("features.0.0.weight", "features.1.block.0.0.weight"),
    "convnext": ("features.0.0.weight", "features.1.0.layer_scale"),
    "swin_transformer": ("features.0.0.weight", "features.1.0.attn.qkv.weight"),
    "googlenet": ("conv1.conv.weight", "inception3a.branch1.conv.weight"),
    "inception": ("Conv2d_1a_3x3.conv.weight", "Mixed_5b.branch1x1.conv.weight"),
    "maxvit": ("stem.0.0.weight", "blocks.0.layers.0.layers.MBconv.layers.pre_norm.weight"),
    "mnasnet": ("layers.0.weight", "layers.8.0.layers.0.weight"),
    "regnet": ("stem.0.weight", "trunk_output.block1.block1-0.proj.0.weight"),
    "shufflenetv2": ("conv1.0.weight", "stage2.0.branch1.0.weight"),
    "squeezenet": ("features.0.weight", "features.3.squeeze.weight"),
    "vision_transformer": ("class_token", "conv_proj.weight"),
}
# The last layer, by torchvision's module.
_HEADS = {
    **dict.fromkeys(("resnet", "googlenet", "inception", "regnet", "shufflenetv2"), "fc"),
    **dict.fromkeys(("vgg", "alexnet"), "classifier.6"),
    **dict.fromkeys(("efficientnet", "mobilenetv2", "mnasnet", "squeezenet"), "classifier.1"),
    "mobilenetv3": "classifier.3",
    "densenet": "classifier",
    "convnext": "classifier.2",
    "swin_transformer": "head",
    "maxvit": "classifier.5",
    "vision_transformer": "heads.head",
}
_SIZES = {"inception": 299}
_POSITIONS = "encoder.pos_embedding"
_TROJANZOO = "features.layer1.0.conv1.weight", "features.conv1.weight", "classifier.fc.weight"


@cache
def _members(module: str) -> dict[str, int]:
    """The networks of a module of torchvision, with the parameters of their usual weights."""
    members = {}
    for name in builder_names():
        if models.get_model_builder(name).__module__.rpartition(".")[2] == module:
            weights = list(models.get_model_weights(name))
            members[name] = int(weights[0].meta.get("num_params", 0)) if weights else 0
    return members


@cache
def _reference(name: str, options: tuple[tuple[str, Any], ...]) -> Shapes:
    return build_shapes(
        partial(torchvision_network, name=name, num_classes=_CLASSES, **dict(options))
    )


def _candidates(module: str, shapes: Shapes) -> Iterator[list[Architecture]]:
    """The member with the nearest number of parameters that fits, or the most similar."""
    shapes, position = _plain_head(shapes, _HEADS[module])
    options = _options(module, shapes)
    classes, *filters = shapes[f"{_HEADS[module]}.weight"]
    parameters = sum(prod(s) for n, s in shapes.items() if not n.endswith(_BUFFERS))
    # The weights are for 1,000 classes and three channels; the stem weighs little.
    parameters += (1000 - classes) * (prod(filters) + 1)
    members = _members(module)
    nearest: tuple[int, list[Architecture]] | None = None
    for name in sorted(members, key=lambda name: abs(members[name] - parameters))[:_MOST_BUILT]:
        reference = _reference(name, options)
        wrong = _differences(shapes, reference)
        if nearest is None or wrong < nearest[0]:
            nearest = wrong, _architectures(module, name, options, shapes, reference, position)
        if not wrong:
            break
    if nearest is not None:
        yield nearest[1]


def _options(module: str, shapes: Shapes) -> tuple[tuple[str, Any], ...]:
    """Arguments of torchvision's functions that the names decide."""
    if module not in ("googlenet", "inception"):
        return ()
    # Their first weights take long to draw, and are not used.
    auxiliary = any(name.startswith(("aux1.", "AuxLogits.")) for name in shapes)
    return (("init_weights", False), ("aux_logits", auxiliary))


def _stem(reference: Shapes) -> str:
    return next(n for n, shape in reference.items() if len(shape) == 4)


def _plain_head(shapes: Shapes, head: str) -> tuple[Shapes, int | None]:
    """The shapes with the last layer under its name, and its position if it is in a Sequential."""
    inside = re.compile(re.escape(head) + r"\.(\d{1,2})\.(weight|bias)")
    matches = {n: match for n in shapes if (match := inside.fullmatch(n))}
    positions = {int(match[1]) for match in matches.values()}
    if f"{head}.weight" in shapes or len(positions) != 1:
        return shapes, None
    names = {n: f"{head}.{match[2]}" for n, match in matches.items()}
    return {names.get(n, n): shape for n, shape in shapes.items()}, positions.pop()


def _differences(shapes: Shapes, reference: Shapes) -> int:
    """How many tensors differ, leaving aside what number of classes and channels change."""
    missing, extra, changed = differences(shapes, reference)
    heads = {n for n, shape in reference.items() if shape[:1] == (_CLASSES,)}
    free = {*heads, _stem(reference), _POSITIONS}
    return len(missing) + len(extra) + len(set(changed) - free)


def _architectures(
    module: str,
    name: str,
    options: tuple[tuple[str, Any], ...],
    shapes: Shapes,
    reference: Shapes,
    position: int | None,
) -> list[Architecture]:
    """The network with the classes, channels and stem of the shapes; several of equal shapes."""
    classes = shapes[f"{_HEADS[module]}.weight"][0]
    usual = reference[_stem(reference)]
    filters = shapes.get(_stem(reference), usual)
    channels, size = filters[1], filters[2]
    arguments: dict[str, Any] = dict(options)
    if position is not None:
        arguments["head_position"] = position
    if channels != usual[1]:
        arguments["in_channels"] = channels
    data: dict[str, Any] = {
        "classes": classes,
        "channels": channels,
        "likely_size": _SIZES.get(module, 224),
    }
    if module == "vision_transformer":
        arguments["image_size"] = data["image_size"] = _image_size(shapes, size)
        if arguments["image_size"] == 224:
            del arguments["image_size"]
    if module == "maxvit":
        data["image_size"] = 224
    stems = _stems(module, size, usual[2])
    if size != usual[2]:
        data["likely_size"] = 32
    return [_network(name, {**arguments, **stem}, size, data) for stem in stems]


def _stems(module: str, size: int, usual: int) -> list[dict[str, Any]]:
    """Arguments that give the same shapes, the most usual first."""
    if module in ("googlenet", "inception"):
        return [{}, {"transform_input": True}]
    if module != "resnet":
        return [{}] if size == usual else [{"stem_size": size, "stem_stride": 1}]
    if size == usual:
        return [{}, {"max_pooling": False}, {"stem_stride": 1, "max_pooling": False}]
    small = {"stem_size": size, "stem_stride": 1}
    return [{**small, "max_pooling": False}, small, {**small, "stem_stride": 2}]


def _image_size(shapes: Shapes, patch: int) -> int:
    positions = shapes[_POSITIONS][1] - 1
    return square_root(positions) * patch


def _network(
    name: str, arguments: Mapping[str, Any], size: int, data: Mapping[str, Any]
) -> Architecture:
    classes = data["classes"]
    own = arguments.keys() - {"init_weights", "aux_logits", "transform_input", "image_size"}
    if not own:
        target, path = models.get_model_builder(name), f"torchvision.models.{name}"
        bound = {"num_classes": classes, **arguments}
    else:
        target, path = torchvision_network, f"{torchvision_network.__module__}.torchvision_network"
        bound = {"name": name, "num_classes": classes, **arguments}
    text = f"torchvision {name}{_changes(arguments, size)}"
    return external_architecture(text, target, path, bound, **data)


def _changes(arguments: Mapping[str, Any], size: int) -> str:
    texts = []
    pooling = arguments.get("max_pooling", True)
    if "stem_size" in arguments:
        stride = arguments["stem_stride"]
        if size == 3 and stride == 1 and not pooling:
            texts.append("with a CIFAR stem")
        elif size == 3 and stride == 1:
            texts.append("with a CIFAR stem and max pooling")
        else:
            words = stem_text(size, stem_stride=stride, max_pooling=pooling)
            texts.append(f"with{words.removeprefix(',')}" if words else f"of stride {stride}")
    elif not pooling:
        stride = arguments.get("stem_stride", 2)
        texts.append(f"without max pooling, stem of stride {stride}")
    if arguments.get("transform_input"):
        texts.append("with ImageNet's normalisation undone inside (transform_input)")
    if "image_size" in arguments:
        texts.append(f"for {arguments['image_size']}x{arguments['image_size']} images")
    if "in_channels" in arguments:
        texts.append(f"with {arguments['in_channels']} input channels")
    if "head_position" in arguments:
        texts.append("with its last layer in a Sequential")
    if arguments.get("features"):
        texts.append("in the layout of TrojanZoo")
    return " " + ", ".join(texts) if texts else ""


def _trojanzoo(shapes: Shapes) -> Iterator[list[Architecture]]:
    """ResNets as ``features`` and ``classifier.fc``."""
    renamed = {
        n.removeprefix("features.").replace("classifier.fc", "fc", 1): s for n, s in shapes.items()
    }
    if len(renamed) < len(shapes):
        raise ValueError("names that differ by features. alone")
    for group in _candidates("resnet", renamed):
        yield [_as_trojanzoo(architecture) for architecture in group]


def _as_trojanzoo(architecture: Architecture) -> Architecture:
    start = "network.build."
    settings = architecture.settings
    arguments = {
        n.removeprefix(start): v
        for n, v in settings.items()
        if n.startswith(start) and not n.endswith("_target_")
    }
    name = arguments.pop("name", None) or str(settings[f"{start}_target_"]).rpartition(".")[2]
    del arguments["num_classes"]
    size = arguments.get("stem_size", 7)
    data = {
        "classes": architecture.classes,
        "channels": architecture.channels,
        "likely_size": architecture.likely_size,
    }
    return _network(name, {**arguments, "features": True}, size, data)


FAMILIES = (
    *(
        Family(names=names, candidates=partial(_candidates, module))
        for module, names in _NAMES.items()
    ),
    Family(names=_TROJANZOO, candidates=_trojanzoo),
)
