"""What layers give, read by forward hooks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cwx.networks.layers import find

# From images to what layers give, by their names.
Outputs = Callable[[Tensor], Mapping[str, Any]]


@contextmanager
def layer_outputs(
    network: nn.Module, names: Sequence[str], read: Callable[[Any], Any] = torch.clone
) -> Iterator[Outputs]:
    """While open, maps images to what several layers give in one pass, by their names.

    Of a layer that the network passes several times it is what it gives last. The network itself
    is called ``""``, and gives its logits.

    Args:
        network: asked in the mode that it is in.
        names: of modules.
        read: what is kept of an output, taken before the network goes on: an operation in place,
            such as a ReLU's, may be about to overwrite it.

    Raises:
        ValueError: there is no such layer or, when called, the network does not pass it.
    """
    layers = {name: find(network, name) for name in names}
    caught: dict[str, Any] = {}

    def outputs(images: Tensor) -> Mapping[str, Any]:
        caught.clear()
        network(images)
        if idle := [name for name in layers if name not in caught]:
            raise ValueError(
                f"the network does not pass its layer {idle[0]!r}, which is to be read: name "
                "another"
            )
        found = dict(caught)
        caught.clear()
        return found

    with ExitStack() as hooks:
        for name, layer in layers.items():

            def keep(_m: nn.Module, _i: Any, output: Any, name: str = name) -> None:
                caught[name] = read(output)

            hooks.callback(layer.register_forward_hook(keep).remove)
        yield outputs
