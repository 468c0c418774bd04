"""The layers of a network: which there are, and what one gives."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cwx.networks.modes import evaluating

# The name of a module, and the shape of what it gave for one image.
Given = tuple[str, tuple[int, ...]]


def spatial_layers(network: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """The names of modules that give ``[n, channels, h, w]`` of several places, as they finish.

    Args:
        image_shape: (C, H, W) of what the network takes.
    """
    given = _given(network, image_shape)
    return _as_they_finish([g for g in given if len(g[1]) == 4 and g[1][2:] != (1, 1)])


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
    if name is not None:
        layers = _as_they_finish(_given(network, image_shape))
        return named_layer(network, name, layers, setting, "an output for each image")
    spatial = spatial_layers(network, image_shape)
    if not spatial:
        raise ValueError(
            f"no layer of {type(network).__name__} gives maps of more than one place, the last of "
            f"which is taken for features: name another layer as {setting}, or choose a "
            "convolutional network"
        )
    return spatial[-1]


def named_layer(
    network: nn.Module, name: str, layers: Sequence[str], setting: str, gives: str
) -> str:
    """The name, if it is one of `layers`, which are all that give what is asked for.

    Raises:
        ValueError: it is not; with the nearest.
    """
    if name in layers:
        return name
    near = difflib.get_close_matches(name, layers, 3, cutoff=0.3) or layers[-3:]
    raise ValueError(
        f"{setting} is {name!r}, which is no layer of {type(network).__name__} that gives {gives}: "
        f"give one such as {', '.join(near) or 'null'}"
    )


@contextmanager
def layer_outputs(network: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """While open, a list that gains what a layer gives, each time that the network passes it."""
    given: list[Tensor] = []
    # Copied, for what follows may work in place.
    hook = network.get_submodule(name).register_forward_hook(
        lambda _module, _inputs, output: given.append(output.clone())
    )
    try:
        yield given
    finally:
        hook.remove()


@torch.no_grad()
def _given(network: nn.Module, image_shape: Sequence[int]) -> list[Given]:
    """What each module gives that gives a tensor of a row an image, in the order they finish."""
    found: list[Given] = []

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() > 1 and len(output) == 1:
            found.append((name, tuple(output.shape)))

    like = next(network.parameters())
    with ExitStack() as hooks:
        hooks.enter_context(evaluating(network))
        for name, module in network.named_modules():
            if name:
                handle = module.register_forward_hook(
                    lambda _module, _inputs, output, name=name: note(name, output)
                )
                hooks.callback(handle.remove)
        network(torch.zeros(1, *image_shape, device=like.device, dtype=like.dtype))
    return found


def _as_they_finish(given: Sequence[Given]) -> list[str]:
    """Names without repetition: a module that runs several times counts where it ends last."""
    return list(dict.fromkeys(name for name, _ in reversed(given)))[::-1]
