"""Activations of neurons, and a running top-k of them over images."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

# Two 32-bit numbers are packed in one of 64 bits.
_HALF = 1 << 32


def spatial_maximum(outputs: Tensor) -> Tensor:
    """The activation of each channel of a layer: its maximum over all positions.

    Args:
        outputs: ``[n, channels, …]``, such as maps ``[n, channels, h, w]``.

    Returns:
        ``[n, channels]``.
    """
    return outputs.flatten(2).amax(2) if outputs.dim() > 2 else outputs


def spatial_mean(outputs: Tensor) -> Tensor:
    """As `spatial_maximum`, but the mean over all positions."""
    return outputs.flatten(2).mean(2) if outputs.dim() > 2 else outputs


class TopActivations(NamedTuple):
    """The k images of highest activation of each neuron, highest first.

    Attributes:
        values: activations in float32, ``[k, neurons]``.
        indices: of the images, ``[k, neurons]``.
        threshold: the highest activation of each neuron over the other images; over all images,
            the lowest, if there are no others; ``[neurons]``.
    """

    values: Tensor
    indices: Tensor
    threshold: Tensor

    @property
    def responding(self) -> Tensor:
        """Boolean mask ``[k, neurons]``: activations above those of all other images.

        Images of equal activation at the end of the top k say nothing about a neuron: only their
        order put them before others. After a ReLU, they are images that the neuron does not fire
        on.
        """
        return self.values > self.threshold


class RunningTopK:
    """The k highest activations of each neuron over a stream of images.

    Equal activations are ordered by image index, for any order of the stream. Memory: one batch,
    k + 1 images and a buffer of more than max(k, `buffer_size`) images.

    Args:
        k: number of images per neuron.
        buffer_size: at least this many images are buffered before they are merged into the top k.
    """

    def __init__(self, k: int, *, buffer_size: int = 512) -> None:
        assert k >= 1
        self.k, self._buffer_size = k, max(k + 1, buffer_size)
        self._top: Tensor | None = None
        self._buffer: list[Tensor] = []
        self._lowest: Tensor | None = None

    def add(self, activations: Tensor, indices: Tensor) -> None:
        """Add the activations ``[n, neurons]`` of the images with `indices` ``[n]``."""
        lowest = activations.amin(0)
        # torch.minimum propagates NaN, which `top` reports.
        self._lowest = lowest if self._lowest is None else torch.minimum(self._lowest, lowest)
        self._buffer.append(_pack(activations.T, indices))
        if sum(batch.shape[1] for batch in self._buffer) >= self._buffer_size:
            self._merge()

    def _merge(self) -> None:
        top = [] if self._top is None else [self._top]
        packed = torch.cat([*top, *self._buffer], 1)
        # The next image after the top k shows which of them only their order put there.
        self._top = packed.topk(min(self.k + 1, packed.shape[1]), 1).values
        self._buffer = []

    def merged(self, others: Iterable["RunningTopK"]) -> "RunningTopK":
        """The top k of these images and of those of others, on the CPU; indices are distinct."""
        parts = (self, *others)
        lowest = [part._lowest.cpu() for part in parts if part._lowest is not None]
        merged = RunningTopK(self.k, buffer_size=self._buffer_size)
        if lowest:
            merged._lowest = torch.stack(lowest).amin(0)
            for part in parts:
                tops = (part._top, *part._buffer)
                merged._buffer += [top.cpu() for top in tops if top is not None]
            merged._merge()
        return merged

    def top(self) -> TopActivations:
        """The top k so far; fewer if there were fewer images.

        Raises:
            ValueError: an activation is not a number.
        """
        assert self._lowest is not None, "there were no images"
        if self._lowest.isnan().any():
            raise ValueError(
                "a neuron's activation is not a number: the network has diverged, or its weights "
                "are damaged; train it anew"
            )
        if self._buffer:
            self._merge()
        assert self._top is not None
        values, indices = _unpack(self._top)
        threshold = values[:, self.k] if values.shape[1] > self.k else self._lowest.float()
        return TopActivations(values[:, : self.k].T, indices[:, : self.k].T, threshold)


def _pack(values: Tensor, indices: Tensor) -> Tensor:
    """Pack values ``[neurons, n]`` and indices in int64 numbers of the same order.

    The upper 32 bits increase with the value, the lower ones decrease with the index: of two equal
    values, the one with the lower index is higher.

    Args:
        indices: ``[n]`` or ``[neurons, n]``.
    """
    # Adding 0 turns -0.0 into 0.0.
    bits = (values.float() + 0.0).contiguous().view(torch.int32)
    # For negative floats, larger bits mean a larger magnitude.
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return ordered.long() * _HALF + (_HALF - 1 - indices)


def _unpack(packed: Tensor) -> tuple[Tensor, Tensor]:
    """The values and indices, each with the shape of `packed`."""
    ordered = torch.div(packed, _HALF, rounding_mode="floor")
    bits = ordered.to(torch.int32)
    values = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).view(torch.float32)
    return values, _HALF - 1 - (packed - ordered * _HALF)
