"""Layer names of a network: convolutions, the last spatial layer, the features."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cwx.errors import closest
from cwx.networks.eval_mode import eval_mode


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The module of that name.

    Raises:
        ValueError: the network has no such module.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if name in modules:
        return modules[name]
    near = closest(name, filter(None, modules))
    raise ValueError(
        f"{type(network).__name__} has no layer {name!r}: the nearest are {', '.join(near)}"
    )


def convolutional_layers(network: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """For each convolution, the name of the layer to read its channels from; in execution order.

    It is the normalisation that takes the convolution's output directly, because that may change
    the sign; otherwise the convolution itself. A following ReLU would not change which images have
    the highest spatial maximum.

    Args:
        image_shape: (C, H, W) of the network's input.
    """
    # A container finishes between a convolution and its norm; skip it. A parametrised convolution
    # has children too.
    calls = [call for call in _calls(network, image_shape) if call.convolves or call.is_leaf]
    names: dict[str, str] = {}
    for call, following in zip(calls, [*calls[1:], None], strict=True):
        if call.convolves:
            has_norm = following and following.normalises and following.input is call.output
            # For a convolution that runs several times, the last run counts.
            names.pop(call.name, None)
            names[call.name] = following.name if following and has_norm else call.name
    return list(dict.fromkeys(names.values()))


def attention_layer(
    network: nn.Module, image_shape: Sequence[int], name: str | None, setting: str
) -> str:
    """The layer to read maps from: the one of that name or, for ``None``, the last spatial layer.

    A spatial layer is a module whose output is ``[n, channels, h, w]`` with h · w > 1. The last of
    them to finish gives the features that the classifier takes.

    Args:
        image_shape: (C, H, W) of the network's input.
        name: of a spatial layer, or ``None``.
        setting: the full setting name of the layer, for error messages.

    Raises:
        ValueError: `name` is no spatial layer, or the network has no spatial layer.
    """
    spatial = spatial_layers(network, image_shape)
    if name is None and not spatial:
        part = setting.rpartition(".")[0]
        raise ValueError(
            f"no layer of {type(network).__name__} gives maps of more than one position, which "
            f"{part} needs: choose a convolutional network, or leave {part} out"
        )
    output = "maps of more than one position"
    return _checked_name(network, spatial[-1] if name is None else name, spatial, setting, output)


def feature_layer(
    network: nn.Module, image_shape: Sequence[int], name: str | None, setting: str
) -> str:
    """The layer whose output ``[n, …]`` is the features: by name, or the last spatial layer.

    Args:
        image_shape: (C, H, W) of the network's input.
        name: of any layer with an output per image; ``None``: the last spatial layer, see
            `attention_layer`.
        setting: the full setting name of the layer, for error messages.

    Raises:
        ValueError: the network has no layer of that name with an output per image or, for
            ``None``, no spatial layer.
    """
    if name is None:
        if spatial := spatial_layers(network, image_shape):
            return spatial[-1]
        raise ValueError(
            f"no layer of {type(network).__name__} gives maps of more than one position, the "
            f"default for the features: set {setting} to another layer, or choose a convolutional "
            "network"
        )
    calls = [call for call in _calls(network, image_shape) if call.has_row_per_image]
    return _checked_name(network, name, _unique_names(calls), setting, "one row per image")


def _checked_name(
    network: nn.Module, name: str, layers: Sequence[str], setting: str, output: str
) -> str:
    """`name`, if it is in `layers`, the layers that have such an output."""
    if name in layers:
        return name
    near = closest(name, layers, cutoff=0.3) or layers[-3:]
    raise ValueError(
        f"{setting} is {name!r}, which is no layer of {type(network).__name__} that gives "
        f"{output}: give one such as {', '.join(near) or 'null'}"
    )


def spatial_layers(network: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """The names of modules with outputs ``[n, channels, h, w]``, h · w > 1, in execution order."""
    return _unique_names([call for call in _calls(network, image_shape) if call.is_spatial])


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a module: its name, its first argument (``None`` without one), its output."""

    name: str
    module: nn.Module
    input: Any
    output: Any

    @property
    def convolves(self) -> bool:
        return isinstance(self.module, nn.Conv2d)

    @property
    def is_leaf(self) -> bool:
        return not [*self.module.children()]

    @property
    def has_row_per_image(self) -> bool:
        """Whether the output for the one image has one row."""
        output = self.output
        return isinstance(output, Tensor) and output.dim() > 1 and len(output) == 1

    @property
    def is_spatial(self) -> bool:
        return self.has_row_per_image and self.output.dim() == 4 and self.output[0, 0].numel() > 1

    @property
    def normalises(self) -> bool:
        # By name: other libraries have their own classes, such as torchvision's FrozenBatchNorm2d.
        return "Norm" in type(self.module).__name__


def _unique_names(calls: Sequence[_Call]) -> list[str]:
    """The names in order of each module's last call."""
    return list(dict.fromkeys(call.name for call in reversed(calls)))[::-1]


@torch.no_grad()
def _calls(network: nn.Module, image_shape: Sequence[int]) -> list[_Call]:
    """All calls of submodules in a forward pass of a zero image, in the order they finish."""
    calls: list[_Call] = []
    parameter = next(network.parameters())
    with ExitStack() as hooks:
        hooks.enter_context(eval_mode(network))
        for name, module in network.named_modules():
            if name:

                def record(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                    calls.append(_Call(name, module, inputs[0] if inputs else None, output))

                hooks.callback(module.register_forward_hook(record).remove)
        network(torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype))
    return calls
