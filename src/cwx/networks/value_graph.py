"""The tensors of a forward pass, the functions between them and the axis of their channels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cwx.networks.eval_mode import eval_mode
from cwx.networks.spatial_axes import PERMUTATIONS, permuted_axes, tensors_in

# Images of a pass: few, and more than one, so that the axis of images can be told from others.
IMAGES = 3
ACTIVATIONS = {
    *("relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "rrelu_"),
    *("elu", "elu_", "celu", "celu_", "selu", "selu_", "gelu", "silu", "mish", "softplus"),
    *("hardswish", "hardsigmoid", "hardtanh", "hardtanh_", "hardshrink", "softshrink"),
    *("sigmoid", "sigmoid_", "tanh", "tanh_", "threshold", "threshold_", "softsign"),
    *("clamp", "clamp_", "clamp_min", "clamp_min_"),
}
_NORMS = {
    *("batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"),
    "local_response_norm",
}
_NEUTRAL = {
    *("dropout", "dropout2d", "alpha_dropout", "feature_alpha_dropout", "contiguous", "clone"),
    *("to", "float", "half", "bfloat16"),
}
SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_", "__sub__", "__isub__"}
_PRODUCTS = {"mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "__truediv__", "div_"}
_CHANNEL_NORMS = {"batch_norm", "group_norm", "instance_norm"}
_CONCATENATIONS = {"cat", "concat", "concatenate"}
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "conv_transpose2d"}


@dataclass(frozen=True, kw_only=True)
class Use:
    """A function that takes a value.

    Attributes:
        function: its name in torch.
        kind: ``norm`` (also a scale or shift per channel), ``addition`` of another value,
            ``activation``, ``permutation``, ``neutral`` such as dropout, ``pooling``, or ``other``.
        output: the number of its output.
        at_zero: what an activation gives for 0; 0 for other functions.
    """

    function: str
    kind: str
    output: int
    at_zero: float = 0.0


@dataclass(eq=False, kw_only=True)
class Value:
    """A tensor of the pass; an in-place function gives a new value.

    Attributes:
        shape: of the tensor.
        from_image: whether it depends on the image.
        axis: that of the channels; ``None`` if unknown.
        depth: the largest number of convolutions and linear layers before it.
        source: the use that gave it, and the number of its first input; ``None`` for an input.
        uses: of the value, in order of execution.
    """

    shape: tuple[int, ...]
    from_image: bool = False
    axis: int | None = None
    depth: int = 0
    source: tuple[Use, int] | None = None
    uses: list[Use] = field(default_factory=list)


class ValueGraph(TorchFunctionMode):
    """Records the values of a pass.

    Attributes:
        values: by number.
        outputs: by module name, the number of the last output that is a tensor, in the order in
            which the modules finish.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.values: list[Value] = []
        self.outputs: dict[str, int] = {}
        # The tensors are kept, because Python uses the identity of a freed tensor again.
        self._numbers: dict[int, tuple[Tensor, int]] = {}
        self._add(images, Value(shape=tuple(images.shape), from_image=True, axis=1))

    def forget_tensors(self) -> None:
        """Free the memory of the pass."""
        self._numbers.clear()

    def _add(self, tensor: Tensor, value: Value) -> int:
        self.values.append(value)
        self._numbers[id(tensor)] = tensor, len(self.values) - 1
        return len(self.values) - 1

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor's present value."""
        known = self._numbers.get(id(tensor))
        return known[1] if known else self._add(tensor, Value(shape=tuple(tensor.shape)))

    def finish(self, name: str, output: Any) -> None:
        """Note the output of a module; of several tensors, the first."""
        output = output[0] if isinstance(output, tuple) and output else output
        self.outputs.pop(name, None)
        # `number` would call a function of a tensor that is unknown, and enter this mode again.
        if isinstance(output, Tensor) and id(output) in self._numbers:
            self.outputs[name] = self.number(output)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        numbers = [self.number(tensor) for tensor in tensors_in([*args, *kwargs.values()])]
        result = func(*args, **kwargs)
        inputs = [n for n in dict.fromkeys(numbers) if self.values[n].from_image]
        name = getattr(func, "__name__", "")
        for output in tensors_in([result]):
            if not inputs:
                self._add(output, Value(shape=tuple(output.shape)))
                continue
            taken = [self.values[n] for n in inputs]
            kind = self._kind(name, taken, output)
            at_zero = _at_zero(func, args, kwargs) if kind == "activation" else 0.0
            use = Use(function=name, kind=kind, output=len(self.values), at_zero=at_zero)
            self._add(
                output,
                Value(
                    shape=tuple(output.shape),
                    from_image=True,
                    axis=_axis(name, func, args, kwargs, taken, output),
                    depth=max(value.depth for value in taken)
                    + (name in _CONVOLUTIONS or name == "linear"),
                    source=(use, inputs[0]),
                ),
            )
            for number in inputs:
                self.values[number].uses.append(use)
        return result

    def _kind(self, name: str, inputs: Sequence[Value], output: Tensor) -> str:
        if name in PERMUTATIONS and len(inputs) == 1 and output.dim() == len(inputs[0].shape):
            return "permutation"
        if "pool" in name:
            return "pooling"
        if any(value.shape != tuple(output.shape) for value in inputs):
            return "other"
        if len(inputs) == 1:
            if name in ACTIVATIONS:
                return "activation"
            if name in _NORMS or name in SUMS or name in _PRODUCTS:
                return "norm"
            return "neutral" if name in _NEUTRAL else "other"
        return "addition" if name in SUMS else "other"


def _at_zero(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """What a function of one tensor, with these further arguments, gives for 0."""
    first, *others = (*args, *([kwargs["input"]] if "input" in kwargs else []))
    rest = {name: value for name, value in kwargs.items() if name != "input"}
    return float(func(torch.zeros_like(first), *others, **rest).flatten()[0])


def _axis(
    name: str,
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    inputs: Sequence[Value],
    output: Tensor,
) -> int | None:
    """The axis of the channels of a function's output; `inputs` are those from the image."""
    first, last = inputs[0], output.dim() - 1
    if name in _CONVOLUTIONS or name in _CHANNEL_NORMS:
        return 1
    if name in {"linear", "multi_head_attention_forward"}:
        return last
    if name in {"layer_norm", "rms_norm"}:
        normalised = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
        # A norm of whole maps says nothing about their axes.
        return last if len(normalised) == 1 else first.axis
    if name in PERMUTATIONS and len(inputs) == 1 and first.axis is not None:
        axes = permuted_axes(func, args, kwargs, len(first.shape), (first.axis,))
        return axes[0] if axes else None
    shape = tuple(output.shape)
    if name in _CONCATENATIONS or all(value.shape == shape for value in inputs):
        # A class token from a parameter, for one, has no known axis.
        known = {value.axis for value in inputs if value.axis is not None}
        return known.pop() if len(known) == 1 and len(first.shape) == len(shape) else None
    if "pool" in name:
        return first.axis
    # Images [n, C, h, w] as [n, C, h · w] keep their channels, other reshapes may not.
    kept = first.axis == 1 and first.shape[:2] == shape[:2] and output.dim() > 2
    return 1 if kept else None


@torch.no_grad()
def value_graph(network: nn.Module, image_shape: Sequence[int]) -> ValueGraph:
    """The values of a pass of `IMAGES` zero images in eval mode.

    Args:
        network: any network.
        image_shape: (C, H, W) of its input.
    """
    parameter = next(network.parameters())
    images = torch.zeros(IMAGES, *image_shape, device=parameter.device, dtype=parameter.dtype)
    graph = ValueGraph(images)
    with ExitStack() as stack:
        stack.enter_context(eval_mode(network))
        for name, module in network.named_modules():

            def finish(_m: nn.Module, _i: Any, output: Any, name: str = name) -> None:
                graph.finish(name, output)

            stack.callback(module.register_forward_hook(finish).remove)
        with graph:
            network(images)
    graph.forget_tensors()
    return graph
