"""Pixel ranges and image priors.

Images are float tensors ``[n, C, H, W]``. *Unit* images have pixels in [0, 1]; *normalised* images
are the input of a network.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """The affine map between unit and normalised pixels, with a mean and a std per channel.

    >>> Normalization(mean=(0.5,), std=(0.5,)).normalize(torch.tensor([[[[0.0, 1.0]]]]))
    tensor([[[[-1.,  1.]]]])
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(
                f"normalisation has {len(self.mean)} means and {len(self.std)} standard "
                "deviations: give one of each per channel"
            )
        if min(self.std) <= 0:
            raise ValueError(f"normalisation std {self.std} must be above 0")

    def normalize(self, images: Tensor) -> Tensor:
        """Normalised images from unit ones."""
        return (images - self._column(self.mean, images)) / self._column(self.std, images)

    def from_bytes(self, images: Tensor) -> Tensor:
        """Normalised float images from bytes in 0-255."""
        return self.normalize(images.float() / 255)

    def to_bytes(self, images: Tensor) -> Tensor:
        """Bytes in 0-255 from normalised images, rounded to the nearest."""
        return (self.denormalize(images).clamp(0, 1) * 255).round().to(torch.uint8)

    def denormalize(self, images: Tensor) -> Tensor:
        """Unit images from normalised ones; values outside [0, 1] are not clamped."""
        return images * self._column(self.std, images) + self._column(self.mean, images)

    def pixel_range(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The normalised values of black and of white, each ``[C, 1, 1]``; dtype as `like`."""
        black = torch.zeros(len(self.mean), 1, 1, dtype=like.dtype, device=like.device)
        return self.normalize(black), self.normalize(black + 1)

    def clamp(self, images: Tensor) -> Tensor:
        """Normalised images, clamped to the range of unit pixels."""
        return self.normalize(self.denormalize(images).clamp(0, 1))

    def project(self, images: Tensor) -> Tensor:
        """Normalised images, each rescaled linearly to the full pixel range (CWX, §6.2)."""
        return self.normalize(rescale(self.denormalize(images)))

    @staticmethod
    def _column(values: Sequence[float], like: Tensor) -> Tensor:
        return _column(tuple(values), like.dtype, like.device)


@cache
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`values` as a tensor ``[C, 1, 1]``.

    Cached, because each copy to a GPU synchronises, and an attack needs two per step. Created
    outside inference mode, because an inference tensor cannot take part in a later gradient.
    """
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


def rescale(images: Tensor) -> Tensor:
    """Map the value range of each image, over all its channels, linearly onto [0, 1].

    A constant image becomes its value clamped to [0, 1]. Shape ``[n, C, H, W]`` is kept.
    """
    low = images.amin((1, 2, 3), keepdim=True)
    span = images.amax((1, 2, 3), keepdim=True) - low
    flat = span == 0
    return torch.where(flat, images.clamp(0, 1), (images - low) / span.masked_fill(flat, 1))


def stretch(images: Tensor, *, tail: float) -> Tensor:
    """Map the central value range of all images together linearly onto [0, 1]; clip the rest.

    The range ends at the quantiles `tail` and 1 − `tail` of the finite values of all images and
    channels, interpolated linearly. If the two are equal, it is the full range, and a constant is
    clamped to [0, 1]. Infinite values are clipped, NaN stays.

    Args:
        images: ``[n, C, H, W]``, whose brightness stays comparable.
        tail: fraction of the values that are clipped at either end, in [0, 0.5).

    >>> stretch(torch.tensor([[[[0.0, 1.0]]], [[[2.0, 4.0]]]]), tail=0).flatten()
    tensor([0.0000, 0.2500, 0.5000, 1.0000])
    """
    values = images.double()
    finite = values[values.isfinite()]
    if not len(finite):
        return images.clamp(0, 1)
    low, high = _quantile(finite, tail), _quantile(finite, 1 - tail)
    if low == high:
        low, high = finite.min().item(), finite.max().item()
    scaled = values if low == high else (values - low) / (high - low)
    return scaled.clamp(0, 1).to(images.dtype)


def _quantile(values: Tensor, fraction: float) -> float:
    """The quantile of any number of values ``[n]``; `torch.quantile` takes 16 million at most."""
    position = fraction * (len(values) - 1)
    below = math.floor(position)
    low, high = (
        values.kthvalue(rank).values.item() for rank in (below + 1, min(below + 2, len(values)))
    )
    return low + (position - below) * (high - low)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images ``[n, C, H, W]`` with a Gaussian of standard deviation `sigma` pixels.

    Edge pixels are repeated, so a constant image stays constant. Image editors call `sigma` the
    radius.

    Raises:
        ValueError: `sigma` is negative.
    """
    if sigma < 0:
        raise ValueError(f"the blur's sigma is {sigma} pixels: give 0 or more")
    if sigma == 0:
        return images
    reach = max(1, round(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.softmax(-(offsets / sigma).square() / 2, 0)
    channels = images.shape[1]
    padded = F.pad(images, [reach] * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(rows, kernel.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)
