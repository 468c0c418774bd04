"""What the layers of a network do not allow: Grad-CAM needs maps, not tokens."""

from torch import nn

from cwx.evaluations.neurons.top_images import audit_layers
from cwx.networks.layers import attention_layer


def unsupported_parts(network: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, str]:
    """The parts of an inspection that the layers of a network do not allow, with the reason.

    Args:
        image_shape: (C, H, W) of the network's input.
    """
    reasons: dict[str, str] = {}
    try:
        attention_layer(network, image_shape, None, "method.gradcam.layer")
    except ValueError as error:
        reasons |= dict.fromkeys(("gradcam", "attention"), _reason(error))
    try:
        audit_layers(network, image_shape, None, "evaluation.neurons.layers")
    except ValueError as error:
        reasons["neurons"] = _reason(error)
    return reasons


def _reason(error: ValueError) -> str:
    """The first part of a message, without the setting in front and the remedy after it."""
    text = str(error).partition(": ")[0]
    return text.removeprefix("evaluation.neurons.layers is null, and ")
