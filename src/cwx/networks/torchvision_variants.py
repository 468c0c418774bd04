"""torchvision's classifiers with another stem, number of channels or head."""

from collections import OrderedDict
from typing import Annotated, Any

from torch import Tensor, nn
from torchvision import models

from cwx.errors import did_you_mean


def builder_names() -> list[str]:
    """The names of torchvision's image classifiers."""
    return list(models.list_models(module=models))


def torchvision_network(
    *,
    name: str,
    num_classes: Annotated[int, ">= 1"],
    in_channels: Annotated[int, ">= 1"] = 3,
    stem_size: Annotated[int, ">= 1"] | None = None,
    stem_stride: Annotated[int, ">= 1"] | None = None,
    max_pooling: bool = True,
    head_position: Annotated[int, ">= 0, <= 100"] | None = None,
    features: bool = False,
    **options: Any,
) -> nn.Module:
    """torchvision's network of that name, untrained, after the usual changes for small images.

    Input ``[n, in_channels, h, w]``; output logits ``[n, num_classes]``.

    Args:
        name: such as ``resnet18``.
        in_channels: of the first convolution.
        stem_size, stem_stride: of the first convolution, padded by half its size; ``None``:
            torchvision's.
        max_pooling: ``False``: without the max pooling ``maxpool`` of a ResNet's stem.
        head_position: the last layer is in a Sequential at this position, after layers without
            effect, such as dropout; ``None``: it is there itself.
        features: a ResNet's tensors are named ``features.conv1.weight``, …, ``classifier.fc``, as
            in TrojanZoo.
        options: further arguments of torchvision's function.

    Raises:
        ValueError: torchvision has no image classifier of that name, or the network has no such
            part to change.
    """
    names = builder_names()
    if name not in names:
        remedy = did_you_mean(name, names, "see torchvision.models.list_models()")
        raise ValueError(f"torchvision has no image classifier {name!r}: {remedy}")
    network: nn.Module = models.get_model_builder(name)(num_classes=num_classes, **options)
    if in_channels != 3 or stem_size is not None or stem_stride is not None:
        _replace_stem(network, in_channels, stem_size, stem_stride)
    if not max_pooling:
        _require(network, name, "maxpool")
        network.maxpool = nn.Identity()
    if head_position is not None:
        head, last = _last_layer(network)
        before = [nn.Identity() for _ in range(head_position)]
        network.set_submodule(head, nn.Sequential(*before, last))
    if features:
        _require(network, name, "layer4")
        return FeaturesAndClassifier(network)
    return network


class FeaturesAndClassifier(nn.Module):
    """A torchvision ResNet as ``features`` and ``classifier.fc``, the names of TrojanZoo."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        layers = dict(network.named_children())
        head, pool = layers.pop("fc"), layers.pop("avgpool")
        self.features = nn.Sequential(OrderedDict(layers))
        self.pool = pool
        self.classifier = nn.Sequential(OrderedDict(fc=head))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(images)).flatten(1))  # type: ignore[no-any-return]


def _replace_stem(network: nn.Module, channels: int, size: int | None, stride: int | None) -> None:
    """A new first convolution with the same filters."""
    convolutions = ((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    name, old = next(convolutions)
    kernel: Any = old.kernel_size if size is None else size
    padding: Any = old.padding if size is None else size // 2
    step: Any = old.stride if stride is None else stride
    new = nn.Conv2d(
        channels,
        old.out_channels,
        kernel,
        step,
        padding,
        bias=old.bias is not None,
        device=old.weight.device,
    )
    network.set_submodule(name, new)


def _last_layer(network: nn.Module) -> tuple[str, nn.Module]:
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return layers[-1]


def _require(network: nn.Module, name: str, part: str) -> None:
    if not hasattr(network, part):
        raise ValueError(f"torchvision's {name} has no {part}: leave that change to a ResNet")
