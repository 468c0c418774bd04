"""Outputs of layers, read by forward hooks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cwx.networks.layers import find_layer

# From images to outputs by layer name.
Outputs = Callable[[Tensor], Mapping[str, Any]]


@contextmanager
def layer_outputs(
    network: nn.Module, names: Sequence[str], read: Callable[[Any], Any] = torch.clone
) -> Iterator[Outputs]:
    """Context manager: a function from images to the outputs of several layers, in one pass.

    For a layer that runs several times, the last output counts. The name ``""`` is the network
    itself, whose output is the logits.

    Args:
        network: runs in its current mode (train or eval).
        names: of the layers.
        read: computes the value to return from a layer's output. It runs before the next layer,
            because an in-place operation such as a ReLU may overwrite the output.

    Raises:
        ValueError: the network has no such layer or, on a call, does not run it.
    """
    layers = {name: find_layer(network, name) for name in names}
    captured: dict[str, Any] = {}

    def outputs(images: Tensor) -> Mapping[str, Any]:
        captured.clear()
        network(images)
        if missing := [name for name in layers if name not in captured]:
            raise ValueError(
                f"the network does not run its layer {missing[0]!r}, whose output is needed: "
                "name another"
            )
        result = dict(captured)
        captured.clear()
        return result

    with ExitStack() as hooks:
        for name, layer in layers.items():

            def capture(_m: nn.Module, _i: Any, output: Any, name: str = name) -> None:
                captured[name] = read(output)

            hooks.callback(layer.register_forward_hook(capture).remove)
        yield outputs
