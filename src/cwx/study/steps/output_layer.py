"""The linear layer that gives the logits of a network, for cures that change it."""

import torch
from torch import Tensor, nn

from cwx.networks.layer_inputs import decision_layer, layer_inputs
from cwx.training.subject import Subject

_SETTING = "cure.layer"


def output_layer(network: nn.Module, chosen: str | None) -> tuple[str, nn.Linear]:
    """The name and the module of the layer `chosen`, by default the last linear one.

    Raises:
        ValueError: it is not linear.
    """
    layer = decision_layer(network, chosen, _SETTING)
    if not isinstance(layer, nn.Linear):
        raise ValueError(
            f"cure.layer is {chosen!r}, of type {type(layer).__name__}: name the linear "
            "layer that gives the logits, or null for the last linear layer"
        )
    return next(name for name, module in network.named_modules() if module is layer), layer


@torch.no_grad()
def output_features(
    subject: Subject, network: nn.Module, chosen: str | None, units: Tensor
) -> Tensor:
    """The inputs ``[n, d]`` of the output layer for unit images.

    Raises:
        ValueError: the layer does not give the logits of the network.
    """
    normalise = subject.data.normalization.normalize
    with layer_inputs(network, chosen, _SETTING) as features:
        parts = [features(normalise(part)) for part in units.split(subject.data.batch_size)]
    result = torch.cat(parts)
    name, layer = output_layer(network, chosen)
    own, outputs = layer(result[:1]), network(normalise(units[:1]))
    if own.shape != outputs.shape or not torch.allclose(own, outputs, rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"the outputs of {type(network).__name__} are not those of its linear layer "
            f"{name!r}: set cure.layer to the linear layer that gives the logits, or choose "
            "cure=unlearn"
        )
    return result
