"""Differentiable augmentation of images (CWX, Appendix A; Zhao & Bilen 2021, siamese augmentation).

Images are normalised floats ``[n, C, H, W]``, and what moves in from outside is 0 there. An
operation's `draw` gives each image its parameters, one row of ``[n, p]``, in float32 on the CPU,
so that every device and any number of ranks sees the same; its `apply` is a function of images
and parameters alone, differentiable once in the images, that keeps shape, dtype and device.

Settings out of range raise a `ValueError`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Operation(Protocol):
    """One kind of change, with the ranges that its parameters are drawn from."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Parameters ``[count, p]``, uniform and independent."""

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Images ``[n, C, H, W]``, each changed by its row of `parameters` ``[n, p]``."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Moves an image by whole pixels and fills with 0: no value is interpolated.

    Each axis moves by up to round(`shift` · side) pixels either way. Parameters ``[n, 2]`` in
    [0, 1): where, among its possible rows and columns, the window lies on the image.
    """

    shift: float

    def __post_init__(self) -> None:
        _require(self, shift=(0, 1))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return _uniform(count, generator, (0, 1), (0, 1))

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        by_rows, by_columns = round(self.shift * height), round(self.shift * width)
        down, right = parameters.to(images.device).unbind(1)
        rows, columns = _window(down, by_rows, height), _window(right, by_columns, width)
        padded = F.pad(images, [by_columns, by_columns, by_rows, by_rows])
        found = padded.take_along_dim(rows[:, None, :, None], 2)
        return found.take_along_dim(columns[:, None, None, :], 3)


@dataclass(frozen=True, kw_only=True)
class Rotate:
    """Turns an image about its centre; bilinear, filled with 0.

    Parameters ``[n, 1]``: degrees within ±`degrees`, counter-clockwise.
    """

    degrees: float

    def __post_init__(self) -> None:
        _require(self, degrees=(0, 180))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return _uniform(count, generator, (-self.degrees, self.degrees))

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        angle = parameters.to(images.device)[:, 0].deg2rad()
        cos, sin = angle.cos(), angle.sin()
        return _sample(images, torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Stretches an image about its centre, each axis on its own; bilinear, filled with 0.

    Parameters ``[n, 2]`` in [1/`factor`, `factor`]: how much taller and wider what it shows gets.
    """

    factor: float

    def __post_init__(self) -> None:
        _require(self, factor=(1, torch.inf))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        span = (1 / self.factor, self.factor)
        return _uniform(count, generator, span, span)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        return _sample(images, parameters.to(images.device).flip(1).reciprocal().diag_embed())


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Swaps left and right.

    Parameters ``[n, 1]``: 1 with `probability`, to swap, else 0.
    """

    probability: float

    def __post_init__(self) -> None:
        _require(self, probability=(0, 1))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return (_uniform(count, generator, (0, 1)) < self.probability).float()

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        swapped = parameters.to(images.device).bool()[..., None, None]
        return torch.where(swapped, images.flip(-1), images)


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """Blanks a square of round(`side` · H) pixels with 0; it may stick out.

    Parameters ``[n, 2]`` in [0, 1): the square's centre, as a part of the height and the width.
    """

    side: float

    def __post_init__(self) -> None:
        _require(self, side=(0, 1))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return _uniform(count, generator, (0, 1), (0, 1))

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        size = round(self.side * height)
        down, right = parameters.to(images.device).unbind(1)
        rows, columns = _covered(down, size, height), _covered(right, size, width)
        return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


@dataclass(frozen=True, kw_only=True)
class Colour:
    """Changes brightness, then saturation, then contrast, of the values as they are.

        x ← x + b                                     b in ±`brightness`
        x ← m + (x − m) s,  m a pixel's mean          s in [0, `saturation`]
        x ← m + (x − m) c,  m the image's mean        c in [`contrast`, 1 + `contrast`]

    Parameters ``[n, 3]``: b, s, c. Grey images have no saturation to change.
    """

    brightness: float
    saturation: float
    contrast: float

    def __post_init__(self) -> None:
        _require(self, **dict.fromkeys(("brightness", "saturation", "contrast"), (0, torch.inf)))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        b, s, c = self.brightness, self.saturation, self.contrast
        return _uniform(count, generator, (-b, b), (0, s), (c, 1 + c))

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        b, s, c = parameters.to(images)[..., None, None, None].unbind(1)
        images = images + b
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * s
        level = images.mean((1, 2, 3), keepdim=True)
        return level + (images - level) * c


@dataclass(frozen=True, kw_only=True)
class Chain:
    """One operation after another; parameters ``[n, p]`` are theirs side by side."""

    operations: Mapping[str, Operation]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.cat([one.draw(count, generator) for one in self.operations.values()], 1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        for one in self.operations.values():
            # How many parameters it has.
            own = one.draw(0, torch.Generator()).shape[1]
            images, parameters = one.apply(images, parameters[:, :own]), parameters[:, own:]
        return images


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Leaves images alone; it has no parameters, ``[n, 0]``."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return _uniform(count, generator)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        return images


@dataclass(frozen=True, eq=False)
class Augmentation:
    """What is done to one batch: an operation, and a row of `parameters` ``[n, p]`` an image.

    Indexed like the batch, it is what is done to those images.
    """

    operation: Operation
    parameters: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """The augmented images ``[n, C, H, W]``.

        Raises:
            ValueError: they are more or fewer than the rows.
        """
        if len(images) != len(self.parameters):
            raise ValueError(
                f"{len(images)} images, but parameters for {len(self.parameters)}: draw as many, "
                "or take the rows of these images with part(rank, ranks) or an index"
            )
        return self.operation.apply(images, self.parameters)

    def __getitem__(self, index: slice | Tensor) -> "Augmentation":
        return replace(self, parameters=self.parameters[index])

    def part(self, rank: int, ranks: int) -> "Augmentation":
        """For the images rank, rank + ranks, …, which are that rank's slice of the batch."""
        return self[rank::ranks]


class Strategy:
    """Draws one of its operations for a batch, all equally likely; of none, the identity."""

    def __init__(self, operations: Mapping[str, Operation]) -> None:
        self.operations = dict(operations)

    def draw(self, count: int, generator: torch.Generator) -> Augmentation:
        """An operation and its parameters for `count` images, from a CPU generator."""
        choices: list[Operation] = list(self.operations.values()) or [Identity()]
        chosen = torch.randint(len(choices), (), generator=generator, device="cpu")
        operation = choices[int(chosen)]
        return Augmentation(operation, operation.draw(count, generator))


def _require(operation: Operation, **ranges: tuple[float, float]) -> None:
    """Hold settings to their ranges, both ends included; infinity never is."""
    for name, (low, high) in ranges.items():
        value = getattr(operation, name)
        if not (low <= value <= high and value < torch.inf):
            wanted = f"{low} or more, finite" if high == torch.inf else f"{low} to {high}"
            raise ValueError(f"{type(operation).__name__.lower()}.{name} is {value}: give {wanted}")


def _uniform(count: int, generator: torch.Generator, *ranges: tuple[float, float]) -> Tensor:
    """Uniform in each range ``[count, len(ranges)]``, wherever and whatever torch's defaults."""
    low, high = torch.tensor(ranges, dtype=torch.float32, device="cpu").view(-1, 2).unbind(1)
    drawn = torch.rand((count, len(ranges)), generator=generator, dtype=low.dtype, device="cpu")
    return low + (high - low) * drawn


def _window(place: Tensor, reach: int, side: int) -> Tensor:
    """Indices ``[n, side]`` of a window in a side padded by `reach`, at `place` in [0, 1)."""
    first = (place * (2 * reach + 1)).long()
    return first[:, None] + torch.arange(side, device=place.device)


def _covered(centre: Tensor, size: int, side: int) -> Tensor:
    """Which pixels of a side lie within `size` pixels about each centre in [0, 1) ``[n, side]``."""
    offset = torch.arange(side, device=centre.device) + 0.5 - side * centre[:, None]
    # Half open: a square inside of the image has exactly `size` pixels a side.
    return (-size / 2 <= offset) & (offset < size / 2)


def _sample(images: Tensor, matrices: Tensor) -> Tensor:
    """Each image at the places that its matrix ``[n, 2, 2]`` takes the pixels (x, y) to, or 0.

    Pixels count from the centre, x to the right and y down. The grid is that of `affine_grid`,
    without its matrix product, which autocast and TF32 round to a fraction of a pixel.
    """
    height, width = images.shape[-2:]
    device, dtype = matrices.device, matrices.dtype
    y = torch.arange(height, device=device, dtype=dtype)[:, None] + (1 - height) / 2
    x = torch.arange(width, device=device, dtype=dtype) + (1 - width) / 2
    to_x, to_y = matrices[..., None, None].unbind(1)
    column = (to_x[:, 0] * x + to_x[:, 1] * y) * (2 / width)
    row = (to_y[:, 0] * x + to_y[:, 1] * y) * (2 / height)
    grid = torch.stack([column, row], -1)
    # Half precision is too coarse for places, and one precision must serve both.
    wide = torch.promote_types(images.dtype, dtype)
    found = F.grid_sample(images.to(wide), grid.to(wide), mode="bilinear", align_corners=False)
    return found.to(images.dtype)
