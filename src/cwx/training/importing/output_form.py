"""What a network returns: logits, probabilities, or a container of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cwx.networks.eval_mode import eval_mode
from cwx.networks.external import output_part
from cwx.training.importing.inputs import Inputs
from cwx.training.network_outputs import are_probabilities

# The keys under which networks return their logits.
_KEYS = ("logits", "out", "output", "pred", "y")


@dataclass(frozen=True)
class OutputForm:
    """The settings of `cwx.networks.external` for what a network returns.

    Attributes:
        output: the part with the logits; ``None`` if the output is a tensor.
        probabilities: whether they are probabilities.
    """

    output: str | int | None
    probabilities: bool

    @property
    def settings(self) -> dict[str, Any]:
        return {"output": self.output, "probabilities": self.probabilities}


@torch.no_grad()
def output_form(network: nn.Module, images: Tensor, inputs: Inputs, classes: int) -> OutputForm:
    """The form of what a network returns for some of these images.

    Args:
        images: bytes ``[n, C, H, W]``.
        inputs: from bytes to the network's input.
        classes: the number of outputs.

    Raises:
        ValueError: no part of the output has one number per class.
    """
    batch = inputs(images[:3])
    device = next((p.device for p in network.parameters()), batch.device)
    with eval_mode(network):
        output = network(batch.to(device))
    name = _part(output, len(batch), classes)
    logits = output if name is None else output_part(output, name)
    return OutputForm(output=name, probabilities=are_probabilities(logits.float()))


def _part(output: Any, count: int, classes: int) -> str | int | None:
    """The name of the part with one number per class; ``None`` if the output itself has."""
    if _fits(output, count, classes):
        return None
    names: list[str | int] = []
    if isinstance(output, Mapping):
        names = [*(key for key in _KEYS if key in output), *(k for k in output if k not in _KEYS)]
    elif isinstance(output, tuple | list):
        names = [*(key for key in _KEYS if hasattr(output, key)), *range(len(output))]
    else:
        names = [key for key in _KEYS if hasattr(output, key)]
    for name in names:
        if _fits(output_part(output, name), count, classes):
            return name
    shape = f"of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
    raise ValueError(
        f"the network returns a {type(output).__name__} {shape}without one number for each of "
        f"{classes} classes: name a network that does with --network"
    )


def _fits(value: Any, count: int, classes: int) -> bool:
    return isinstance(value, Tensor) and tuple(value.shape) == (count, classes)
