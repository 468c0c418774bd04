"""What makes neurons respond most: their activations, and the highest of any number of images."""

from typing import NamedTuple

import torch
from torch import Tensor

# Two numbers of 32 bits in one of 64.
_HALF = 1 << 32


def spatial_maximum(outputs: Tensor) -> Tensor:
    """The activation of each channel of a layer, its highest value over all places.

    Args:
        outputs: ``[n, channels, …]``, such as maps ``[n, channels, h, w]``.

    Returns:
        ``[n, channels]``.
    """
    return outputs.flatten(2).amax(2) if outputs.dim() > 2 else outputs


def spatial_mean(outputs: Tensor) -> Tensor:
    """As `spatial_maximum`, but the mean over all places."""
    return outputs.flatten(2).mean(2) if outputs.dim() > 2 else outputs


class Top(NamedTuple):
    """The images that neurons respond to most, the highest first.

    Attributes:
        values: activations in single precision, ``[k, neurons]``.
        indices: of the images, ``[k, neurons]``.
        lowest: the activation of each neuron where it is lowest, ``[neurons]``.
    """

    values: Tensor
    indices: Tensor
    lowest: Tensor

    @property
    def responding(self) -> Tensor:
        """Bools ``[k, neurons]``: activations above the neuron's lowest.

        A neuron that is at rest for most images, as behind a ReLU, may have fewer than k others;
        which of the resting ones fill its places says nothing about it.
        """
        return self.values > self.lowest


class Highest:
    """The k highest activations of each neuron over a stream of images.

    Memory is that of some 2k images, however many there are. Equal activations are taken in the
    order of their images' indices, whatever order these come in.

    Args:
        k: how many.
        room: images at least that wait until they are merged together.
    """

    def __init__(self, k: int, *, room: int = 512) -> None:
        assert k >= 1
        self.k, self._room = k, max(k, room)
        self._best: Tensor | None = None
        self._waiting: list[Tensor] = []
        self._lowest: Tensor | None = None

    def add(self, activations: Tensor, indices: Tensor) -> None:
        """Take the activations ``[n, neurons]`` of the images at `indices` ``[n]``."""
        lowest = activations.amin(0)
        # A minimum that is not a number stays so.
        self._lowest = lowest if self._lowest is None else torch.minimum(self._lowest, lowest)
        self._waiting.append(_packed(activations.T, indices))
        if sum(waiting.shape[1] for waiting in self._waiting) >= self._room:
            self._merge()

    def _merge(self) -> None:
        best = [] if self._best is None else [self._best]
        together = torch.cat([*best, *self._waiting], 1)
        self._best = together.topk(min(self.k, together.shape[1]), 1).values
        self._waiting = []

    def top(self) -> Top:
        """What is the highest so far; k is less where there were fewer images.

        Raises:
            ValueError: an activation is not a number.
        """
        assert self._lowest is not None, "there were no images"
        if self._lowest.isnan().any():
            raise ValueError(
                "a neuron's activation is not a number: the network has diverged, or its weights "
                "are damaged; train it anew"
            )
        if self._waiting:
            self._merge()
        assert self._best is not None
        values, indices = _unpacked(self._best)
        return Top(values.T, indices.T, self._lowest.float())


def _packed(values: Tensor, indices: Tensor) -> Tensor:
    """Values ``[neurons, n]`` with their indices ``[n]``, in numbers that order as both do.

    The upper half orders as the values do, the lower one against the indices, so that the higher
    of two equal values is the one with the lower index.
    """
    # Of the two zeros, one.
    bits = (values.float() + 0.0).contiguous().view(torch.int32)
    # Among negative numbers, larger bits are a larger magnitude.
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return ordered.long() * _HALF + (_HALF - 1 - indices)


def _unpacked(packed: Tensor) -> tuple[Tensor, Tensor]:
    """The values and indices of `_packed`, each of its shape."""
    ordered = torch.div(packed, _HALF, rounding_mode="floor")
    bits = ordered.to(torch.int32)
    values = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).view(torch.float32)
    return values, _HALF - 1 - (packed - ordered * _HALF)
