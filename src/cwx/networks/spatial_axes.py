"""The spatial axes of every tensor in a forward pass, and the layers that work on tokens."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Axes = tuple[int, ...]

PERMUTATIONS = {"permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "__get__"}
_RESHAPES = {"reshape", "view", "reshape_as", "view_as", "unflatten", "flatten", "unfold", "fold"}
_PRODUCTS = {"matmul", "__matmul__", "bmm", "baddbmm", "einsum", "tensordot"}
_ATTENTION = {
    "multi_head_attention_forward",
    "scaled_dot_product_attention",
    "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
}
_MIXERS = {"linear", "layer_norm", "rms_norm", *_PRODUCTS, *_ATTENTION}


class SpatialAxes(TorchFunctionMode):
    """Follows the axes of height and width from an image through all functions of a pass.

    Elementwise functions, norms and linear layers keep the axes, permutations move them, and a
    reshape that merges them loses them. Two-dimensional convolutions and pooling state them. An
    output that has lost its axes holds tokens, such as those of a transformer.

    Args:
        image: ``[1, C, H, W]``, the input of the pass.

    Attributes:
        token_shapes: shapes of the outputs of linear layers, norms and products that work on
            tokens, in order of execution.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.token_shapes: list[tuple[int, ...]] = []
        # The tensors are kept, because Python uses the identity of a freed one again.
        self._axes: dict[int, tuple[Tensor, Axes]] = {}
        self._set(image, (2, 3))

    def of(self, tensor: Tensor) -> Axes | None:
        """The axes of height and width; ``None`` if a reshape or a product has lost them."""
        entry = self._axes.get(id(tensor))
        return entry[1] if entry else None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outputs = [output for output in tensors_in([result]) if output.dim() > 2]
        if not outputs:
            return result
        inputs = [*tensors_in(args), *tensors_in(kwargs.values())]
        name = getattr(func, "__name__", "")
        for output in outputs:
            axes = self._output_axes(name, func, (args, kwargs), inputs, output)
            if axes is not None:
                self._set(output, axes)
            else:
                self._axes.pop(id(output), None)
        if name in _MIXERS and self.of(outputs[0]) is None and _has_positions(outputs[0]):
            self.token_shapes.append(tuple(outputs[0].shape))
        return result

    def _set(self, tensor: Tensor, axes: Axes) -> None:
        self._axes[id(tensor)] = tensor, axes

    def _output_axes(
        self,
        name: str,
        func: Callable[..., Any],
        arguments: tuple[Sequence[Any], dict[str, Any]],
        inputs: Sequence[Tensor],
        output: Tensor,
    ) -> Axes | None:
        if not inputs:
            return None
        if name in {"conv2d", "conv_transpose2d"} or "pool2d" in name:
            # They also tell the axes of an input that was reshaped from tokens.
            if inputs[0].dim() == 4 and self.of(inputs[0]) is None:
                self._set(inputs[0], (2, 3))
            return (2, 3) if output.dim() == 4 else None
        if name in PERMUTATIONS:
            axes = self.of(inputs[0])
            return permuted_axes(func, *arguments, inputs[0].dim(), axes) if axes else None
        if name in _RESHAPES:
            axes = self.of(inputs[0])
            return _reshaped(inputs[0].shape, output.shape, axes) if axes else None
        if name in _ATTENTION or (name in _PRODUCTS and not _is_linear(inputs)):
            return None
        same = [self.of(tensor) for tensor in inputs if tensor.dim() == output.dim()]
        return next((axes for axes in same if axes), None)


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among values, and in their lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors_in(value)


def _has_positions(output: Tensor) -> bool:
    """Whether an output for one image has more axes than that of its channels."""
    return sum(size > 1 for size in output.shape) > 1


def _is_linear(inputs: Sequence[Tensor]) -> bool:
    """Whether a product is that of maps and a matrix of weights."""
    return len(inputs) == 2 and inputs[1].dim() <= 2


def permuted_axes(
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    dims: int,
    axes: Axes,
) -> Axes | None:
    """Where a permutation moves axes: a trial on a tensor of distinct sizes shows it.

    Args:
        func: the function, called with `args` and `kwargs`.
        args, kwargs: of the call; the first is the tensor.
        dims: the number of axes of the tensor.
        axes: to follow.

    Returns:
        ``None`` if the function is no permutation of all axes.
    """
    sizes = range(2, 2 + dims)
    trial = torch.empty(*sizes, device="meta")
    rest = {key: value for key, value in kwargs.items() if not isinstance(value, Tensor)}
    output = func(trial, *args[1:], **rest) if args else func(trial, **rest)
    shape = list(output.shape) if isinstance(output, Tensor) else []
    return tuple(shape.index(sizes[axis]) for axis in axes) if sorted(shape) == [*sizes] else None


def _reshaped(before: Sequence[int], after: Sequence[int], axes: Axes) -> Axes | None:
    """The axes where a reshape leaves them whole: all axes before, or after, them keep sizes."""
    first, end = min(axes), max(axes) + 1
    if before[:end] == after[:end]:
        return axes
    shift = len(after) - len(before)
    if first + shift > 0 and before[first:] == after[first + shift :]:
        return tuple(axis + shift for axis in axes)
    return None
