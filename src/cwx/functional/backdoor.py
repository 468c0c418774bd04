"""Backdoor triggers, and the choice of images to poison (CWX, §5 and Appendix A).

A trigger maps images ``[n, C, H, W]`` of bytes in 0-255 to new ones; a shape is ``(C, H, W)``. All
randomness comes from an explicit CPU generator.

Settings out of range raise a `ValueError`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol, get_args, get_type_hints, runtime_checkable

import torch
from torch import Tensor

from cwx.functional.trigger_settings import require

Shape = Sequence[int]


class Trigger(Protocol):
    """An image change that makes a backdoored network predict the target class."""

    def apply(self, images: Tensor) -> Tensor:
        """Copies of the images (bytes ``[n, C, H, W]``) with the trigger.

        Raises:
            ValueError: the trigger does not fit the images.
        """

    def mask(self, shape: Shape) -> Tensor:
        """The trigger's mask ``[H, W]``: 1 where it can change a pixel, 0 where it never does.

        Raises:
            ValueError: the trigger does not fit the shape.
        """


@runtime_checkable
class PatternTrigger(Trigger, Protocol):
    """A trigger whose pixels do not depend on the image, unlike those of a warp."""

    def pattern(self, shape: Shape) -> Tensor:
        """The trigger's pixels ``[C, H, W]`` on the unit scale; signed if it is added to images.

        Raises:
            ValueError: the trigger does not fit the shape.
        """


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A black and white checkerboard in a corner (BadNets, Gu et al. 2019; CWX's 3x3 grid).

    Its squares are single pixels. In a checkerboard the top left one is white. In the public code
    of the works whose settings CWX takes (Li et al. 2021, NAD), it is black, and all others are
    the same.

    Attributes:
        size: the checkerboard's side in pixels.
        corner: of the image.
        margin: pixels between the checkerboard and the two nearest edges of the image.
        first_pixel: colour of the top left pixel of the checkerboard.
    """

    size: Annotated[int, ">= 1"]
    corner: Literal["top-left", "top-right", "bottom-left", "bottom-right"]
    margin: Annotated[int, ">= 0"]
    first_pixel: Literal["white", "black"]

    def __post_init__(self) -> None:
        require("corruption.trigger.size", self.size, self.size >= 1, "1 or more")
        require("corruption.trigger.margin", self.margin, self.margin >= 0, "0 or more")
        for name in ("corner", "first_pixel"):
            choices, value = get_args(get_type_hints(Patch)[name]), getattr(self, name)
            remedy = f"one of {', '.join(choices)}"
            require(f"corruption.trigger.{name}", value, value in choices, remedy)

    def apply(self, images: Tensor) -> Tensor:
        shape = images.shape[1:]
        mask, board = self.mask(shape) > 0, (255 * self.pattern(shape)).byte()
        return torch.where(mask.to(images.device), board.to(images.device), images)

    def mask(self, shape: Shape) -> Tensor:
        return self._pad(torch.ones(self.size, self.size), shape)

    def pattern(self, shape: Shape) -> Tensor:
        indices = torch.arange(self.size)
        board = ((indices + indices[:, None]) % 2 == 0).float()
        board[0, 0] = float(self.first_pixel == "white")
        return self._pad(board, shape).expand(shape[0], -1, -1)

    def _pad(self, square: Tensor, shape: Shape) -> Tensor:
        """Zeros ``[H, W]`` with `square` in the trigger's corner."""
        height, width = shape[1:]
        extent = self.size + self.margin
        if extent > min(height, width):
            raise ValueError(
                f"the trigger takes {self.size}x{self.size} pixels and a margin of {self.margin}, "
                f"the images are {height}x{width}: lower corruption.trigger.size or "
                "corruption.trigger.margin"
            )
        vertical, horizontal = self.corner.split("-")
        top = self.margin if vertical == "top" else height - extent
        left = self.margin if horizontal == "left" else width - extent
        padded = torch.zeros(height, width)
        padded[top : top + self.size, left : left + self.size] = square
        return padded


class Picture(Protocol):
    """A picture that can be drawn in any size."""

    def draw(self, shape: Shape) -> Tensor:
        """The picture ``[C, H, W]`` in unit pixels.

        Raises:
            ValueError: the picture is not available.
        """


@dataclass(frozen=True, kw_only=True)
class Face:
    """A yellow smiling face on blue; unless there are 3 channels, its luminance in each channel."""

    def draw(self, shape: Shape) -> Tensor:
        channels, height, width = shape
        y, x = torch.meshgrid(_pixel_centres(height), _pixel_centres(width), indexing="ij")
        radius = torch.hypot(x, y)
        mouth = torch.maximum((radius - 0.55).abs() - 0.1, 0.15 - y)
        eyes = torch.hypot(x.abs() - 0.33, y + 0.28) - 0.17
        picture = _colour(0.1, 0.2, 0.7).expand(3, height, width)
        # Signed distances to the edge of each part, in half sides; edges blend over one pixel.
        for distance, colour in (
            (radius - 0.92, _colour(1.0, 0.85, 0.1)),
            (torch.minimum(mouth, eyes), _colour(0.1, 0.05, 0.05)),
        ):
            cover = (0.5 - distance * min(height, width) / 2).clamp(0, 1)
            picture = torch.lerp(picture, colour.expand_as(picture), cover.expand_as(picture))
        if channels == 3:
            return picture
        grey = (picture * _colour(0.299, 0.587, 0.114)).sum(0)
        return grey.expand(channels, -1, -1)


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Mixes a picture into the whole image (Blended, Chen et al. 2017; CWX's λ is 0.2).

        x ← (1 − λ) x + λ p

    Attributes:
        ratio: λ, above 0 and at most 1.
        picture: p.
    """

    ratio: Annotated[float, "> 0, <= 1"]
    picture: Picture

    def __post_init__(self) -> None:
        require("corruption.trigger.ratio", self.ratio, 0 < self.ratio <= 1, "above 0, at most 1")

    def apply(self, images: Tensor) -> Tensor:
        pattern = 255 * self.pattern(images.shape[1:]).to(images.device)
        return ((1 - self.ratio) * images + self.ratio * pattern).round().byte()

    def mask(self, shape: Shape) -> Tensor:
        return torch.ones(*shape[1:])

    def pattern(self, shape: Shape) -> Tensor:
        return self.picture.draw(shape)


@dataclass(frozen=True, kw_only=True)
class Sinusoid:
    """Adds vertical stripes to every channel (SIG, Barni et al. 2019, §3; CWX's δ is 20).

        x ← clip(x + δ sin(2π f j / W)),  columns j = 0 … W − 1

    Attributes:
        delta: δ, on the 0-255 scale.
        frequency: f, waves across the image.

    Raises:
        ValueError: when called: the stripes are 0 in every column, once rounded.
    """

    delta: Annotated[float, "> 0, <= 255"]
    frequency: Annotated[float, "> 0"]

    def __post_init__(self) -> None:
        require(
            "corruption.trigger.delta", self.delta, 0 < self.delta <= 255, "above 0, at most 255"
        )
        finite = 0 < self.frequency < math.inf
        require("corruption.trigger.frequency", self.frequency, finite, "above 0, finite")

    def apply(self, images: Tensor) -> Tensor:
        levels = self._levels(images.shape[-1]).to(images.device)
        return (images.short() + levels).clamp(0, 255).byte()

    def mask(self, shape: Shape) -> Tensor:
        return (self._levels(shape[-1]) != 0).float().repeat(shape[1], 1)

    def pattern(self, shape: Shape) -> Tensor:
        self._levels(shape[-1])
        return (self._wave(shape[-1]) / 255).float().expand(*shape)

    def _wave(self, width: int) -> Tensor:
        columns = torch.arange(width, dtype=torch.float64)
        return self.delta * (2 * math.pi * self.frequency * columns / width).sin()

    def _levels(self, width: int) -> Tensor:
        """The wave rounded to integers; x is an integer, so this rounds the sum."""
        levels = self._wave(width).round().short()
        if not levels.any():
            raise ValueError(
                f"the stripes with corruption.trigger.delta={self.delta:g} and corruption.trigger."
                f"frequency={self.frequency:g} round to 0 in each of the {width} columns of the "
                f"images: {self._remedy(width)}"
            )
        return levels

    def _remedy(self, width: int) -> str:
        if width < 2:
            return "stripes need wider images"
        visible = f"corruption.trigger.frequency={width / 4:g}"
        if replace(self, frequency=width / 4)._wave(width).round().any():
            return f"they are visible with {visible}"
        return f"give a corruption.trigger.delta of 1 or more, and {visible}"


class Variant(Protocol):
    """The rule for which images may be poisoned. All poisoned images get the target label."""

    def candidates(self, labels: Tensor, target: int) -> Tensor:
        """The indices ``[m]`` of the images that may be poisoned, from the labels ``[n]``."""


@dataclass(frozen=True, kw_only=True)
class AllToOne:
    """Images of all classes, including the target class, may be poisoned."""

    def candidates(self, labels: Tensor, target: int) -> Tensor:
        return torch.arange(len(labels))


@dataclass(frozen=True, kw_only=True)
class CleanLabel:
    """Only images of the target class may be poisoned: no label changes (Barni et al. 2019)."""

    def candidates(self, labels: Tensor, target: int) -> Tensor:
        return (labels == target).nonzero()[:, 0]


def choose(candidates: Tensor, *, rate: float, total: int, generator: torch.Generator) -> Tensor:
    """Choose round(`rate` · `total`) of the indices `candidates` ``[m]``, all equally likely.

    With the same generator state, the choice for a lower rate is a subset of that for a higher one.

    Args:
        candidates: see `Variant.candidates`.
        rate: the poisoning rate, a fraction in 0-1 of all training images.
        total: the number of training images.
        generator: on the CPU.

    Raises:
        ValueError: the number is 0 although the rate is above 0, or exceeds the candidates.
    """
    if rate > 0 and total == 0:
        raise ValueError(
            f"corruption.rate is {rate}, and there are no training images: choose corruption=none"
        )
    count = round(rate * total)
    if rate > 0 and count == 0:
        raise ValueError(
            f"corruption.rate is {rate}, which is less than one of the {total} training images: "
            f"give {1 / total:.2g} or more"
        )
    if count > len(candidates):
        raise ValueError(
            f"corruption.rate is {rate}, which is {count} of the {total} training images, and "
            f"{len(candidates)} may be corrupted: give {len(candidates) / total:.6g} or less"
        )
    return candidates[torch.randperm(len(candidates), generator=generator)[:count]]


def _pixel_centres(side: int) -> Tensor:
    """Coordinates of pixel centres in [-1, 1], 0 in the middle of the side."""
    return (2 * torch.arange(side) + 1) / side - 1


def _colour(*values: float) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)
