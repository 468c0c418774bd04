"""Features of a network: the inputs of one of its layers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from cwx.networks.layers import find_layer

Features = Callable[[Tensor], Tensor]


@contextmanager
def layer_inputs(network: nn.Module, name: str | None, setting: str) -> Iterator[Features]:
    """Context manager: a function from images ``[n, C, H, W]`` to the inputs ``[n, d]`` of a layer.

    Args:
        network: runs in its current mode (train or eval).
        name: of the layer; ``None``: the last linear layer, whose inputs are the penultimate
            features.
        setting: the setting that holds `name`, for messages.

    Raises:
        ValueError: the network has no such layer or, on a call, does not run it; for ``None``, its
            inputs are not ``[n, d]``.
    """
    layer = decision_layer(network, name, setting)
    captured: list[Tensor] = []

    def features(images: Tensor) -> Tensor:
        captured.clear()
        network(images)
        if not captured:
            raise ValueError(
                f"the network does not run its layer {name!r}, which has to give the features: "
                f"set {setting} to another layer"
            )
        inputs = captured.pop()
        if name is None and inputs.dim() != 2:
            raise ValueError(
                f"the last linear layer of {type(network).__name__} takes inputs of shape "
                f"{tuple(inputs.shape)}, such as tokens, not the penultimate features "
                f"[n, features]: set {setting} to the layer whose inputs are the features"
            )
        return inputs.flatten(1)

    # The output of the layer before may differ: a function may pool or flatten it.
    hook = layer.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    try:
        yield features
    finally:
        hook.remove()


def decision_layer(network: nn.Module, name: str | None, setting: str) -> nn.Module:
    """The module of that name, or the last linear one.

    Raises:
        ValueError: the network has no such module.
    """
    if name is not None:
        return find_layer(network, name)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(
            f"the network has no linear layer to take features from: set {setting} to the layer "
            "whose inputs are the features"
        )
    return linear[-1]
