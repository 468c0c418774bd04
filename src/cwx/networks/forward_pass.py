"""One forward pass of a network: what each of its modules takes and gives."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cwx.networks.eval_mode import eval_mode
from cwx.networks.spatial_axes import SpatialAxes


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        name: of the module.
        input: its first argument; ``None`` without one.
        tokens: the number of layers on tokens that ran before its end.
    """

    name: str
    module: nn.Module
    input: Any
    output: Any
    tokens: int

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
    def is_map(self) -> bool:
        """Whether the output has the shape of maps, whatever its axes mean."""
        return self.has_row_per_image and self.output.dim() == 4 and self.output[0, 0].numel() > 1

    @property
    def normalises(self) -> bool:
        # By name: other libraries have their own classes, such as torchvision's FrozenBatchNorm2d.
        return "Norm" in type(self.module).__name__


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """A forward pass of a zero image.

    Attributes:
        calls: of all submodules, in the order they finish.
        axes: the spatial axes of all outputs.
    """

    calls: Sequence[Call]
    axes: SpatialAxes

    def output(self, name: str) -> Any:
        """The last output of a layer; ``None`` if it does not run."""
        return next((call.output for call in reversed(self.calls) if call.name == name), None)

    def layout(self, name: str) -> str | None:
        """What a layer gives in words, if its second axis is not that of the channels."""
        output = self.output(name)
        if not isinstance(output, Tensor) or output.dim() < 3:
            return None
        axes, shape = self.axes.of(output), list(output.shape)
        if output.dim() == 4 and axes == (1, 2):
            return f"channels-last maps (shape {shape})"
        # A single position has no axes to mistake.
        if output.dim() == 4 and (axes == (2, 3) or output.shape[2:].numel() == 1):
            return None
        return f"tokens (shape {shape})"

    def tokens_after(self, call: Call) -> list[int]:
        """The shape of the first tokens that a layer works on after a call; empty without any."""
        return [*next(iter(self.axes.token_shapes[call.tokens :]), ())]

    def spatial_names(self) -> list[str]:
        """The modules with outputs ``[n, channels, h, w]``, h · w > 1, in execution order."""
        names = unique_names([call for call in self.calls if call.is_map])
        return [name for name in names if self.layout(name) is None]


@torch.no_grad()
def forward_pass(network: nn.Module, image_shape: Sequence[int]) -> ForwardPass:
    """Run a network in eval mode.

    Args:
        image_shape: (C, H, W) of the network's input.
    """
    calls: list[Call] = []
    parameter = next(network.parameters())
    image = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    axes = SpatialAxes(image)
    with ExitStack() as hooks:
        hooks.enter_context(eval_mode(network))
        for name, module in network.named_modules():
            if name:

                def record(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                    first = inputs[0] if inputs else None
                    calls.append(Call(name, module, first, output, len(axes.token_shapes)))

                hooks.callback(module.register_forward_hook(record).remove)
        with axes:
            network(image)
    return ForwardPass(calls, axes)


def unique_names(calls: Sequence[Call]) -> list[str]:
    """The names in order of each module's last call."""
    return list(dict.fromkeys(call.name for call in reversed(calls)))[::-1]
