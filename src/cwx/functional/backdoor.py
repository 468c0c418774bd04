"""Backdoor triggers, and which images carry them (CWX, §5 and Appendix A).

A trigger changes images ``[n, C, H, W]`` of bytes in 0-255 and returns new ones; a shape is
``(C, H, W)``. Whatever is random comes from an explicit CPU generator.

Settings out of range raise a `ValueError`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, get_type_hints

import torch
from torch import Tensor

Shape = Sequence[int]


class Trigger(Protocol):
    """What an image must carry for a backdoored network to see the target class in it."""

    def apply(self, images: Tensor) -> Tensor:
        """Copies of the images ``[n, C, H, W]``, of bytes as they are, that carry the trigger.

        Raises:
            ValueError: the trigger does not fit the images.
        """

    def mask(self, shape: Shape) -> Tensor:
        """Where the trigger sits ``[H, W]``: 1 where it can change a pixel, 0 where it never does.

        Raises:
            ValueError: the trigger does not fit the shape.
        """

    def pattern(self, shape: Shape) -> Tensor:
        """What it looks like ``[C, H, W]``, in unit pixels; signed if it is added to images.

        Raises:
            ValueError: the trigger does not fit the shape.
        """


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A black and white checkerboard in a corner (BadNets, Gu et al. 2019; CWX's 3x3 grid).

    Its squares are single pixels, and the first of them is white.

    Attributes:
        size: its side in pixels.
        corner: of the image.
        margin: pixels between it and the edges that meet in the corner.
    """

    size: int
    corner: Literal["top-left", "top-right", "bottom-left", "bottom-right"]
    margin: int

    def __post_init__(self) -> None:
        _require("patch.size", self.size, self.size >= 1, "1 or more")
        _require("patch.margin", self.margin, self.margin >= 0, "0 or more")
        corners = get_args(get_type_hints(Patch)["corner"])
        known = self.corner in corners
        _require("patch.corner", self.corner, known, f"one of {', '.join(corners)}")

    def apply(self, images: Tensor) -> Tensor:
        shape = images.shape[1:]
        covered, board = self.mask(shape) > 0, (255 * self.pattern(shape)).byte()
        return torch.where(covered.to(images.device), board.to(images.device), images)

    def mask(self, shape: Shape) -> Tensor:
        return self._placed(torch.ones(self.size, self.size), shape)

    def pattern(self, shape: Shape) -> Tensor:
        places = torch.arange(self.size)
        board = ((places + places[:, None]) % 2 == 0).float()
        return self._placed(board, shape).expand(shape[0], -1, -1)

    def _placed(self, square: Tensor, shape: Shape) -> Tensor:
        height, width = shape[1:]
        needed = self.size + self.margin
        if needed > min(height, width):
            raise ValueError(
                f"the trigger takes {self.size}x{self.size} pixels and a margin of {self.margin}, "
                f"the images are {height}x{width}: lower the trigger's size or margin"
            )
        vertical, horizontal = self.corner.split("-")
        top = self.margin if vertical == "top" else height - needed
        left = self.margin if horizontal == "left" else width - needed
        whole = torch.zeros(height, width)
        whole[top : top + self.size, left : left + self.size] = square
        return whole


class Picture(Protocol):
    """Something to look at, of any size."""

    def draw(self, shape: Shape) -> Tensor:
        """The picture ``[C, H, W]`` in unit pixels.

        Raises:
            ValueError: it cannot be had.
        """


@dataclass(frozen=True, kw_only=True)
class Face:
    """A yellow smiling face on blue; in other than three channels, each shows its luminance."""

    def draw(self, shape: Shape) -> Tensor:
        channels, height, width = shape
        y, x = torch.meshgrid(_places(height), _places(width), indexing="ij")
        radius = torch.hypot(x, y)
        mouth = torch.maximum((radius - 0.55).abs() - 0.1, 0.15 - y)
        eyes = torch.hypot(x.abs() - 0.33, y + 0.28) - 0.17
        picture = _colour(0.1, 0.2, 0.7).expand(3, height, width)
        # Signed distances to the edge of each part, in half sides; an edge is a pixel wide.
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

    ratio: float
    picture: Picture

    def __post_init__(self) -> None:
        _require("blend.ratio", self.ratio, 0 < self.ratio <= 1, "above 0, at most 1")

    def apply(self, images: Tensor) -> Tensor:
        shown = 255 * self.pattern(images.shape[1:]).to(images.device)
        return ((1 - self.ratio) * images + self.ratio * shown).round().byte()

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
    """

    delta: float
    frequency: float

    def __post_init__(self) -> None:
        _require("sinusoid.delta", self.delta, 0 < self.delta <= 255, "above 0, at most 255")
        finite = 0 < self.frequency < math.inf
        _require("sinusoid.frequency", self.frequency, finite, "above 0, finite")

    def apply(self, images: Tensor) -> Tensor:
        levels = self._levels(images.shape[-1]).to(images.device)
        return (images.short() + levels).clamp(0, 255).byte()

    def mask(self, shape: Shape) -> Tensor:
        return (self._levels(shape[-1]) != 0).float().repeat(shape[1], 1)

    def pattern(self, shape: Shape) -> Tensor:
        return (self._wave(shape[-1]) / 255).float().expand(*shape)

    def _wave(self, width: int) -> Tensor:
        columns = torch.arange(width, dtype=torch.float64)
        return self.delta * (2 * math.pi * self.frequency * columns / width).sin()

    def _levels(self, width: int) -> Tensor:
        """The wave in whole levels: x is whole, so rounding it rounds the sum."""
        return self._wave(width).round().short()


class Variant(Protocol):
    """Which images an attack may poison; all that it does poison are labelled as the target."""

    def candidates(self, labels: Tensor, target: int) -> Tensor:
        """Of labels ``[n]``, the indices ``[m]`` of those that may be poisoned."""


@dataclass(frozen=True, kw_only=True)
class AllToOne:
    """Images of every class, the target's own too, are poisoned and labelled as the target."""

    def candidates(self, labels: Tensor, target: int) -> Tensor:
        return torch.arange(len(labels))


@dataclass(frozen=True, kw_only=True)
class CleanLabel:
    """Images of the target class alone are poisoned: no label is wrong (Barni et al. 2019)."""

    def candidates(self, labels: Tensor, target: int) -> Tensor:
        return (labels == target).nonzero()[:, 0]


def choose(candidates: Tensor, *, rate: float, total: int, generator: torch.Generator) -> Tensor:
    """round(`rate` · `total`) of the indices `candidates` ``[m]``, all equally likely.

    From the same generator, a lower rate chooses some of what a higher one does.

    Raises:
        ValueError: that is less than one, though the rate is above 0, or more than `candidates`.
    """
    if rate > 0 and total == 0:
        raise ValueError(f"a rate of {rate} of no training images is of nothing: give 0")
    count = round(rate * total)
    if rate > 0 and count == 0:
        raise ValueError(
            f"a rate of {rate} of {total} training images is less than one image: give 0, or "
            f"{1 / total:.2g} or more"
        )
    if count > len(candidates):
        raise ValueError(
            f"a rate of {rate} of {total} training images is {count}, and {len(candidates)} may "
            f"be corrupted: give {len(candidates) / total:.4g} or less"
        )
    return candidates[torch.randperm(len(candidates), generator=generator)[:count]]


def _require(name: str, value: object, fits: bool, wanted: str) -> None:
    if not fits:
        raise ValueError(f"{name} is {value!r}: give {wanted}")


def _places(side: int) -> Tensor:
    """The centres of a side's pixels, in half sides from the middle."""
    return (2 * torch.arange(side) + 1) / side - 1


def _colour(*values: float) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)
