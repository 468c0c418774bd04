"""The receptive fields of units: which part of an image each position of a map depends on.

Rows and columns of an image are set to NaN, in turn, and the positions that become NaN depend on
them. This holds for any network: strides, dilation, pooling, additions, concatenations, tokens and
attention pass NaN on from exactly what they read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from cwx.networks.eval_mode import eval_mode
from cwx.networks.unit_layers import UnitLayer
from cwx.networks.unit_outputs import unit_outputs
from cwx.networks.value_graph import ACTIVATIONS, SUMS

# Images of a pass.
_BATCH = 16
_MAP_NORMS = frozenset({"batch_norm", "group_norm", "instance_norm"})
_SHAPED_NORMS = frozenset({"layer_norm", "rms_norm"})


@torch.no_grad()
def receptive_fields(
    network: nn.Module, image_shape: Sequence[int], layers: Sequence[UnitLayer]
) -> dict[str, Tensor]:
    """The smallest box of pixels around those that each position of each unit depends on.

    The statistics of a norm of whole maps, such as GroupNorm, do not count: through them every
    position would depend on the whole image. Other functions of whole maps do, such as squeeze and
    excitation, attention and linear layers. The values of weights have no influence.

    Args:
        network: any network, on any device.
        image_shape: (C, H, W) of its input.
        layers: of the units.

    Returns:
        By the layer's name, int16 ``[units, positions, 4]``, or ``[1, positions, 4]`` if all units
        are alike: the first column and row of the box, and the column and row after its last, in
        pixels of the image. Positions are in the order of a flattened map; units without maps have
        one. A position that depends on no pixel has zeros.
    """
    height, width = image_shape[1:]
    mode = _Dependence if _is_faithful(network, image_shape, layers) else nullcontext
    # Four images show whether a box reaches all edges of the image. In most deep layers all do.
    fields = _boxes(network, image_shape, layers, (0, height - 1), (0, width - 1), mode)
    whole = torch.tensor([0, 0, width, height], dtype=torch.int16)
    others = [layer for layer in layers if not (fields[layer.name] == whole).all()]
    if others:
        fields |= _boxes(network, image_shape, others, range(height), range(width), mode)
    return fields


def _is_faithful(
    network: nn.Module, image_shape: Sequence[int], layers: Sequence[UnitLayer]
) -> bool:
    """Whether the network runs in the mode `_Dependence`, and an image without NaN gives none."""
    images = _varied(image_shape, next(network.parameters()))[None]
    try:
        with eval_mode(network), unit_outputs(network, layers, _are_nan) as outputs, _Dependence():
            return not any(bool(nan.any()) for nan in outputs(images).values())
    except RuntimeError:
        return False


def _boxes(
    network: nn.Module,
    image_shape: Sequence[int],
    layers: Sequence[UnitLayer],
    rows: Iterable[int],
    columns: Iterable[int],
    mode: Callable[[], AbstractContextManager[Any]],
) -> dict[str, Tensor]:
    """The boxes around those of some rows and columns of the image that positions depend on."""
    intervals: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    parameter = next(network.parameters())
    with eval_mode(network), unit_outputs(network, layers, _are_nan) as outputs:
        for axis, indices in ((-2, rows), (-1, columns)):
            by_layer: dict[str, Tensor] = {}
            for batch, images in _probes(image_shape, axis, list(indices), parameter):
                with mode():
                    affected = outputs(images)
                for name, positions in affected.items():
                    bounds = _bounds(positions, batch)
                    if name in by_layer:
                        bounds = torch.minimum(bounds, by_layer[name])
                    by_layer[name] = bounds
            for name, bounds in by_layer.items():
                intervals[name].append(bounds)
    return {name: _joined(*of_layer) for name, of_layer in intervals.items()}


def _probes(
    image_shape: Sequence[int], axis: int, indices: Sequence[int], like: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images that are NaN at one index of an axis each, and these indices."""
    base = _varied(image_shape, like)
    for batch in torch.tensor(indices, dtype=torch.int16).split(_BATCH):
        images = base.repeat(len(batch), *[1] * len(image_shape))
        for image, index in zip(images, batch.tolist(), strict=True):
            image.select(axis, index).fill_(torch.nan)
        yield batch.to(like.device), images


def _are_nan(outputs: Tensor) -> Tensor:
    """Boolean ``[n, units, positions]``, or ``[n, 1, positions]`` if all units are alike."""
    outputs = outputs[:, :1] if _shares_channels(outputs) else outputs
    affected = outputs.reshape(*outputs.shape[:2], -1).isnan()
    return affected[:, :1] if bool((affected == affected[:, :1]).all()) else affected


def _bounds(affected: Tensor, indices: Tensor) -> Tensor:
    """The lowest index, and minus the highest, that affects each position: ``[2, units, …]``."""
    column = indices[:, None, None]
    none = torch.iinfo(torch.int16).max
    lowest = torch.where(affected, column, none).amin(0)
    return torch.stack([lowest, torch.where(affected, -column, none).amin(0)]).to(torch.int16)


def _joined(rows: Tensor, columns: Tensor) -> Tensor:
    """Boxes ``[units, positions, 4]`` of the bounds of rows and columns."""
    rows, columns = torch.broadcast_tensors(rows, columns)
    boxes = torch.stack([columns[0], rows[0], 1 - columns[1], 1 - rows[1]], -1).cpu()
    depends = rows[0] < torch.iinfo(torch.int16).max
    return torch.where(depends.cpu()[..., None], boxes, torch.zeros_like(boxes))


class _Dependence(TorchFunctionMode):
    """Passes NaN on from the positions that a function reads, in a fraction of its time.

    A convolution of any number of channels becomes that of a mask per group, whose channels share
    their memory. Poolings and additions keep it so. Activations, which may lose NaN, and norms of
    maps give their input.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "conv2d" and (args or [kwargs["input"]])[0].dim() == 4:
            return _convolution(*args, **kwargs)
        if name == "linear":
            return _linear(*args, **kwargs)
        if args and (_is_pointwise(name, args, kwargs) or _is_map_norm(name, args, kwargs)):
            return _copy(args[0])
        if args and ("pool" in name or name in SUMS) and _have_shared_channels(args, kwargs):
            narrow = [value[:, :1] if isinstance(value, Tensor) else value for value in args]
            result = func(*narrow, **kwargs)
            # An in-place function has changed the memory of all channels.
            return args[0] if result is narrow[0] else _expanded(result, args[0].shape[1])
        return func(*args, **kwargs)


def _have_shared_channels(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether all tensors are maps of one number of channels, all in one place in memory."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    return (
        isinstance(args[0], Tensor)
        and all(map(_shares_channels, tensors))
        and len({tensor.shape[1] for tensor in tensors}) == 1
    )


def _shares_channels(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.shape[1] > 1 and tensor.stride(1) == 0


def _expanded(maps: Any, channels: int) -> Any:
    return maps.expand(-1, channels, -1, -1) if isinstance(maps, Tensor) else maps


def _copy(maps: Tensor) -> Tensor:
    if _shares_channels(maps):
        return maps[:, :1].clone().expand(-1, maps.shape[1], -1, -1)
    return maps.clone()


def _is_pointwise(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    others = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, Tensor)]
    return name in ACTIVATIONS and (not others or name == "prelu")


def _is_map_norm(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    if name in _SHAPED_NORMS:
        shape = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
        return len(shape) > 1
    return name in _MAP_NORMS


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """As ``torch.nn.functional.conv2d``, with NaN where a window has NaN."""
    del bias
    if _shares_channels(input):
        mask = input[:, :1].isnan().float().expand(-1, groups, -1, -1)
    else:
        mask = input.isnan().unflatten(1, (groups, -1)).any(2).float()
    kernel = mask.new_ones(groups, 1, *weight.shape[2:])
    reached = F.conv2d(mask, kernel, None, stride, padding, dilation, groups) > 0.5
    channels = len(weight)
    if groups > 1:
        reached = reached.repeat_interleave(channels // groups, 1)
    filled = torch.where(reached, torch.nan, _varied(reached.shape[-1:], input))
    return filled.expand(-1, channels, -1, -1) if groups == 1 else filled


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``torch.nn.functional.linear``, with NaN where a row has NaN."""
    del bias
    reached = input.isnan().any(-1, keepdim=True)
    return torch.where(reached, torch.nan, _varied((len(weight),), input))


def _varied(shape: Sequence[int], like: Tensor) -> Tensor:
    """Values that differ, so that no later function divides by their deviation of 0."""
    count = torch.Size(shape).numel()
    return torch.linspace(0.5, 1, count, device=like.device, dtype=like.dtype).reshape(*shape)
