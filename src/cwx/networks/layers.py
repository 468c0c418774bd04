"""Layers of a network by name: convolutions, the last feature map, the features."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cwx.errors import closest
from cwx.networks.eval_mode import evaluating


def find(network: nn.Module, name: str) -> nn.Module:
    """The module of that name.

    Raises:
        ValueError: there is none.
    """
    named: dict[str, nn.Module] = dict(network.named_modules())
    if name in named:
        return named[name]
    near = closest(name, filter(None, named))
    raise ValueError(
        f"{type(network).__name__} has no layer {name!r}: the nearest are {', '.join(near)}"
    )


def convolutional(network: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """The names of the layers that give each convolution's channels, in the order they finish.

    That is the normalisation where one takes the convolution's output directly, for it may turn
    its sign, and else the convolution itself. A ReLU behind them would not change which images
    have the highest spatial maximum.

    Args:
        image_shape: (C, H, W) of what the network takes.
    """
    # What holds others would end between the two. A parametrised convolution holds others too.
    steps = [call for call in _calls(network, image_shape) if call.convolves or call.is_leaf]
    found: dict[str, str] = {}
    for call, behind in zip(steps, [*steps[1:], None], strict=True):
        if call.convolves:
            follows = behind and behind.normalises and behind.takes is call.gives
            # One that runs several times counts where it runs last.
            found.pop(call.name, None)
            found[call.name] = behind.name if behind and follows else call.name
    return list(dict.fromkeys(found.values()))


def attended_layer(
    network: nn.Module, image_shape: Sequence[int], name: str | None, setting: str
) -> str:
    """The layer that maps are read of: by name, or the last that has more than one place.

    That is the last of the modules, in the order in which they finish, whose output is a tensor
    ``[n, channels, h, w]`` with h · w above 1: it ends the features that a classifier sees.

    Args:
        image_shape: (C, H, W) of what the network takes.
        setting: what names the layer, in messages.

    Raises:
        ValueError: there is no such layer, or none with more than one place.
    """
    spatial = spatial_layers(network, image_shape)
    if name is None and not spatial:
        part = setting.rpartition(".")[0]
        raise ValueError(
            f"no layer of {type(network).__name__} gives maps of more than one place, the last of "
            f"which {part} looks at: choose a convolutional network, or leave {part} out"
        )
    gives = "maps of more than one place"
    return _named(network, spatial[-1] if name is None else name, spatial, setting, gives)


def feature_layer(
    network: nn.Module, image_shape: Sequence[int], name: str | None, setting: str
) -> str:
    """The layer whose output ``[n, …]`` is a network's features: by name, or the last with places.

    Args:
        image_shape: (C, H, W) of what the network takes.
        setting: what names the layer, in messages.

    Raises:
        ValueError: there is no such layer, or none with more than one place.
    """
    if name is None:
        if spatial := spatial_layers(network, image_shape):
            return spatial[-1]
        raise ValueError(
            f"no layer of {type(network).__name__} gives maps of more than one place, the last of "
            f"which is taken for features: name another layer as {setting}, or choose a "
            "convolutional network"
        )
    each = [call for call in _calls(network, image_shape) if call.is_of_an_image]
    return _named(network, name, _as_they_finish(each), setting, "an output for each image")


def _named(network: nn.Module, name: str, layers: Sequence[str], setting: str, gives: str) -> str:
    """The name, if it is one of `layers`, which are all that give what is asked for."""
    if name in layers:
        return name
    near = closest(name, layers, cutoff=0.3) or layers[-3:]
    raise ValueError(
        f"{setting} is {name!r}, which is no layer of {type(network).__name__} that gives {gives}: "
        f"give one such as {', '.join(near) or 'null'}"
    )


def spatial_layers(network: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """The names of modules that give ``[n, channels, h, w]`` of several places, as they finish."""
    return _as_they_finish([call for call in _calls(network, image_shape) if call.is_spatial])


@dataclass(frozen=True, eq=False)
class _Call:
    """A module of that name, the first thing that it was given, and what it gave."""

    name: str
    module: nn.Module
    takes: Any
    gives: Any

    @property
    def convolves(self) -> bool:
        return isinstance(self.module, nn.Conv2d)

    @property
    def is_leaf(self) -> bool:
        return not [*self.module.children()]

    @property
    def is_of_an_image(self) -> bool:
        """Whether it gives a row for the one image."""
        gives = self.gives
        return isinstance(gives, Tensor) and gives.dim() > 1 and len(gives) == 1

    @property
    def is_spatial(self) -> bool:
        return self.is_of_an_image and self.gives.dim() == 4 and self.gives[0, 0].numel() > 1

    @property
    def normalises(self) -> bool:
        # Other libraries have classes of their own for it, such as torchvision's frozen ones.
        return "Norm" in type(self.module).__name__


def _as_they_finish(calls: Sequence[_Call]) -> list[str]:
    """Names without repetition: a module that runs several times counts where it ends last."""
    return list(dict.fromkeys(call.name for call in reversed(calls)))[::-1]


@torch.no_grad()
def _calls(network: nn.Module, image_shape: Sequence[int]) -> list[_Call]:
    """Every call of a module but the network while a blank image passes, as they finish."""
    calls: list[_Call] = []
    like = next(network.parameters())
    with ExitStack() as hooks:
        hooks.enter_context(evaluating(network))
        for name, module in network.named_modules():
            if name:

                def note(module: nn.Module, given: Any, output: Any, name: str = name) -> None:
                    calls.append(_Call(name, module, given[0] if given else None, output))

                hooks.callback(module.register_forward_hook(note).remove)
        network(torch.zeros(1, *image_shape, device=like.device, dtype=like.dtype))
    return calls
