"""What a layer of a network is given: the features that it decides by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from cwx.networks.layers import find

Features = Callable[[Tensor], Tensor]


@contextmanager
def layer_inputs(network: nn.Module, name: str | None) -> Iterator[Features]:
    """While open, maps images ``[n, C, H, W]`` to the inputs ``[n, d]`` of a layer.

    Args:
        network: asked in the mode that it is in.
        name: of the layer among its modules; ``None`` for the last linear one, whose inputs are
            the penultimate features.

    Raises:
        ValueError: there is no such layer or, when called, the network does not pass it.
    """
    layer = find_layer(network, name)
    caught: list[Tensor] = []

    def features(images: Tensor) -> Tensor:
        caught.clear()
        network(images)
        if not caught:
            raise ValueError(
                f"the network does not pass its layer {name!r}, which is to give the features: "
                "name another"
            )
        return caught.pop().flatten(1)

    # Not the output of the layer before, which may be pooled or flattened by a function.
    hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        yield features
    finally:
        hook.remove()


def find_layer(network: nn.Module, name: str | None) -> nn.Module:
    """The module of that name, or the last linear one.

    Raises:
        ValueError: there is none.
    """
    if name is not None:
        return find(network, name)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(
            "the network has no linear layer to take features from: name the layer that decides "
            "(dataset_construction.algorithm.layer)"
        )
    return linear[-1]
