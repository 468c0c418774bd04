"""Differentiable augmentation of images (CWX, Appendix A; Zhao & Bilen 2021, siamese augmentation).

Images are normalised floats ``[n, C, H, W]``; pixels from outside the image are 0 on that scale.
The method `draw` of an operation draws one row of parameters ``[n, p]`` per image, in float32 on
the CPU: they are the same for all devices and any number of ranks. Its `apply` is a pure function
of images and parameters, differentiable once in the images; it keeps shape, dtype and device.

Settings out of range raise a `ValueError`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Operation(Protocol):
    """One kind of augmentation, with the ranges of its parameters."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Parameters ``[count, p]``, uniform and independent."""

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """The images ``[n, C, H, W]``, each augmented with its row of `parameters` ``[n, p]``."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Translates an image by whole pixels, without interpolation; fills with 0.

    The translation of each axis is at most round(`shift` · side) pixels in both directions.
    Parameters ``[n, 2]`` in [0, 1): relative row and column of the window in the padded image.
    """

    shift: Annotated[float, ">= 0, <= 1"]

    def __post_init__(self) -> None:
        _require(self, shift=(0, 1))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return _uniform(count, generator, (0, 1), (0, 1))

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        max_down, max_right = round(self.shift * height), round(self.shift * width)
        down, right = parameters.to(images.device).unbind(1)
        rows, columns = _window(down, max_down, height), _window(right, max_right, width)
        padded = F.pad(images, [max_right, max_right, max_down, max_down])
        strips = padded.take_along_dim(rows[:, None, :, None], 2)
        return strips.take_along_dim(columns[:, None, None, :], 3)


@dataclass(frozen=True, kw_only=True)
class Rotate:
    """Rotates an image about its centre; bilinear, filled with 0.

    Parameters ``[n, 1]``: degrees within ±`degrees`, counter-clockwise.
    """

    degrees: Annotated[float, ">= 0, <= 180"]

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
    """Scales height and width of the content independently about the centre; bilinear, fills 0.

    Parameters ``[n, 2]`` in [1/`factor`, `factor`]: the factors of height and width.
    """

    factor: Annotated[float, ">= 1, <= 1000"]

    def __post_init__(self) -> None:
        _require(self, factor=(1, torch.inf))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        span = (1 / self.factor, self.factor)
        return _uniform(count, generator, span, span)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        return _sample(images, parameters.to(images.device).flip(1).reciprocal().diag_embed())


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Flips images horizontally.

    Parameters ``[n, 1]``: 1 (flip) with `probability`, otherwise 0.
    """

    probability: Annotated[float, ">= 0, <= 1"]

    def __post_init__(self) -> None:
        _require(self, probability=(0, 1))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return (_uniform(count, generator, (0, 1)) < self.probability).float()

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        mask = parameters.to(images.device).bool()[..., None, None]
        return torch.where(mask, images.flip(-1), images)


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """Sets a square with sides of round(`side` · H) pixels to 0; it may exceed the image.

    Parameters ``[n, 2]`` in [0, 1): the square's centre, as fractions of height and width.
    """

    side: Annotated[float, ">= 0, <= 1"]

    def __post_init__(self) -> None:
        _require(self, side=(0, 1))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return _uniform(count, generator, (0, 1), (0, 1))

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        size = round(self.side * height)
        down, right = parameters.to(images.device).unbind(1)
        rows, columns = _interval(down, size, height), _interval(right, size, width)
        return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


@dataclass(frozen=True, kw_only=True)
class Colour:
    """Changes brightness, then saturation, then contrast of the normalised values.

        x ← x + b                                     b in ±`brightness`
        x ← m + (x − m) s,  m a pixel's mean          s in [0, `saturation`]
        x ← m + (x − m) c,  m the image's mean        c in [`contrast`, 1 + `contrast`]

    Parameters ``[n, 3]``: b, s, c. Saturation does not change grey images.
    """

    brightness: Annotated[float, ">= 0, <= 1000"]
    saturation: Annotated[float, ">= 0, <= 1000"]
    contrast: Annotated[float, ">= 0, <= 1000"]

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
    """Operations in sequence; parameters ``[n, p]`` are theirs, concatenated."""

    operations: Mapping[str, Operation]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.cat([op.draw(count, generator) for op in self.operations.values()], 1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        for operation in self.operations.values():
            count = operation.draw(0, torch.Generator()).shape[1]
            images = operation.apply(images, parameters[:, :count])
            parameters = parameters[:, count:]
        return images


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Returns images unchanged; it has no parameters, ``[n, 0]``."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return _uniform(count, generator)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        return images


@dataclass(frozen=True, eq=False)
class Augmentation:
    """The augmentation of one batch: an operation and its `parameters` ``[n, p]``, a row per image.

    An index selects the rows of some images of the batch.
    """

    operation: Operation
    parameters: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """The augmented images ``[n, C, H, W]``.

        Raises:
            ValueError: the number of images is not the number of rows.
        """
        if len(images) != len(self.parameters):
            raise ValueError(
                f"{len(images)} images, but parameters for {len(self.parameters)}: draw parameters "
                "for these images, or select their rows with part(rank, ranks) or an index"
            )
        return self.operation.apply(images, self.parameters)

    def __getitem__(self, index: slice | Tensor) -> "Augmentation":
        return replace(self, parameters=self.parameters[index])

    def part(self, rank: int, ranks: int) -> "Augmentation":
        """The rows of the images rank, rank + ranks, …: that rank's part of the batch."""
        return self[rank::ranks]


class Strategy:
    """Draws one operation per batch, all equally likely; the identity if it has none."""

    def __init__(self, operations: Mapping[str, Operation]) -> None:
        self.operations = dict(operations)

    def draw(self, count: int, generator: torch.Generator) -> Augmentation:
        """An operation and its parameters for `count` images, from a CPU generator."""
        choices: list[Operation] = list(self.operations.values()) or [Identity()]
        index = torch.randint(len(choices), (), generator=generator, device="cpu")
        operation = choices[int(index)]
        return Augmentation(operation, operation.draw(count, generator))


def _require(operation: Operation, **ranges: tuple[float, float]) -> None:
    """Refuse settings outside their closed ranges, and infinite ones."""
    for name, (low, high) in ranges.items():
        value = getattr(operation, name)
        if not (low <= value <= high and value < torch.inf):
            remedy = f"{low} or more, finite" if high == torch.inf else f"{low} to {high}"
            raise ValueError(f"{type(operation).__name__.lower()}.{name} is {value}: give {remedy}")


def _uniform(count: int, generator: torch.Generator, *ranges: tuple[float, float]) -> Tensor:
    """Uniform in each range ``[count, len(ranges)]``, independent of torch's default settings."""
    low, high = torch.tensor(ranges, dtype=torch.float32, device="cpu").view(-1, 2).unbind(1)
    uniform = torch.rand((count, len(ranges)), generator=generator, dtype=low.dtype, device="cpu")
    return low + (high - low) * uniform


def _window(position: Tensor, padding: int, side: int) -> Tensor:
    """Indices ``[n, side]`` of a window in a padded side, at a relative `position` in [0, 1)."""
    first = (position * (2 * padding + 1)).long()
    return first[:, None] + torch.arange(side, device=position.device)


def _interval(centre: Tensor, size: int, side: int) -> Tensor:
    """Boolean mask ``[n, side]`` of the `size` pixels around each relative `centre` in [0, 1)."""
    offset = torch.arange(side, device=centre.device) + 0.5 - side * centre[:, None]
    # Half open, so that an interval inside the image has exactly `size` pixels.
    return (-size / 2 <= offset) & (offset < size / 2)


def _sample(images: Tensor, matrices: Tensor) -> Tensor:
    """Sample each image at its matrix ``[n, 2, 2]`` times the pixel coordinates (x, y); 0 outside.

    Coordinates are in pixels from the centre, x to the right and y down. The grid is that of
    `affine_grid` without its matrix product, which autocast and TF32 would round by a fraction of a
    pixel.
    """
    height, width = images.shape[-2:]
    device, dtype = matrices.device, matrices.dtype
    y = torch.arange(height, device=device, dtype=dtype)[:, None] + (1 - height) / 2
    x = torch.arange(width, device=device, dtype=dtype) + (1 - width) / 2
    to_x, to_y = matrices[..., None, None].unbind(1)
    column = (to_x[:, 0] * x + to_x[:, 1] * y) * (2 / width)
    row = (to_y[:, 0] * x + to_y[:, 1] * y) * (2 / height)
    grid = torch.stack([column, row], -1)
    # Half precision is too coarse for coordinates, and grid_sample needs one dtype for both.
    wide = torch.promote_types(images.dtype, dtype)
    sampled = F.grid_sample(images.to(wide), grid.to(wide), mode="bilinear", align_corners=False)
    return sampled.to(images.dtype)
