"""Patches at any position, patches from pictures, and a choice of several triggers.

Images are bytes ``[n, C, H, W]`` in 0-255.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from cwx.functional.backdoor import Patch, PatternTrigger, Picture, Shape
from cwx.functional.rng import stream
from cwx.functional.trigger_settings import require

# Images whose trigger is chosen at a time: their integers take eight times their memory.
_CHUNK = 256
_PRIME = 1_000_003


@dataclass(frozen=True, kw_only=True)
class PatchAt:
    """A black and white checkerboard at any position; see `Patch`.

    Attributes:
        size: the checkerboard's side in pixels.
        row, column: of its top left pixel, from 0.
        first_pixel: colour of this pixel.
    """

    size: Annotated[int, ">= 1"]
    row: Annotated[int, ">= 0"]
    column: Annotated[int, ">= 0"]
    first_pixel: Literal["white", "black"]

    def __post_init__(self) -> None:
        self._board()
        _require_position(self.row, self.column)

    def apply(self, images: Tensor) -> Tensor:
        shape = images.shape[1:]
        mask, board = self.mask(shape) > 0, (255 * self.pattern(shape)).byte()
        return torch.where(mask.to(images.device), board.to(images.device), images)

    def mask(self, shape: Shape) -> Tensor:
        return _place(torch.ones(1, self.size, self.size), self.row, self.column, shape)[0]

    def pattern(self, shape: Shape) -> Tensor:
        board = self._board().pattern((shape[0], self.size, self.size))
        return _place(board, self.row, self.column, shape)

    def _board(self) -> Patch:
        return Patch(size=self.size, corner="top-left", margin=0, first_pixel=self.first_pixel)


@runtime_checkable
class SizedPicture(Picture, Protocol):
    """A picture with a size of its own, such as one from a file."""

    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""


@runtime_checkable
class Cutout(Picture, Protocol):
    """A picture that may have an alpha channel."""

    def draw_cutout(self, shape: Shape) -> tuple[Tensor, Tensor]:
        """The colours ``[C, H, W]`` and the alpha channel ``[1, H, W]``, 1 where opaque, in 0-1."""


@dataclass(frozen=True, kw_only=True)
class PicturePatch:
    """A picture in a square of the image.

        x ← (1 − α m) x + α m p

    Attributes:
        picture: p.
        mask_picture: m, from its luminance: white where the picture covers the image, black where
            it does not; ``None`` for the picture's alpha channel, and for the whole square if it
            has none.
        opacity: α, above 0 and at most 1.
        size: the square's side in pixels.
        row, column: of its top left pixel, from 0.

    Raises:
        ValueError: a setting is out of range; when called: picture and mask have different sizes,
            the mask is black, the picture is transparent everywhere, or in part and has a mask, or
            the square does not fit the images.
    """

    picture: Picture
    mask_picture: Picture | None
    opacity: Annotated[float, "> 0, <= 1"]
    size: Annotated[int, ">= 1"]
    row: Annotated[int, ">= 0"]
    column: Annotated[int, ">= 0"]

    def __post_init__(self) -> None:
        require("corruption.trigger.size", self.size, self.size >= 1, "1 or more")
        require_opacity("corruption.trigger.opacity", self.opacity)
        _require_position(self.row, self.column)

    def apply(self, images: Tensor) -> Tensor:
        shape = images.shape[1:]
        weight = self._weight(shape).to(images.device)
        pattern = 255 * self.pattern(shape).to(images.device)
        return torch.lerp(images.float(), pattern, weight.expand_as(pattern)).round().byte()

    def mask(self, shape: Shape) -> Tensor:
        return (self._weight(shape) > 0).float()

    def pattern(self, shape: Shape) -> Tensor:
        drawn, _ = self._cutout(shape[0])
        return _place(drawn, self.row, self.column, shape)

    def _weight(self, shape: Shape) -> Tensor:
        """α m, ``[H, W]``."""
        _, mask = self._cutout(shape[0])
        if self.mask_picture is not None:
            mask = self._mask_from_picture(self.mask_picture, mask)
        elif not mask.any():
            raise ValueError(
                "corruption.trigger.picture is transparent everywhere at the patch's size, so that "
                "no pixel of it would show: give a picture that is opaque where it shows"
            )
        return _place(self.opacity * mask, self.row, self.column, shape)[0]

    def _cutout(self, channels: int) -> tuple[Tensor, Tensor]:
        """The picture's colours ``[C, s, s]`` and alpha channel ``[1, s, s]``."""
        shape = channels, self.size, self.size
        if isinstance(self.picture, Cutout):
            return self.picture.draw_cutout(shape)
        return self.picture.draw(shape), torch.ones(1, self.size, self.size)

    def _mask_from_picture(self, mask_picture: Picture, alpha: Tensor) -> Tensor:
        if (alpha < 1).any():
            raise ValueError(
                "corruption.trigger.picture has transparent pixels, and there is a mask as well: "
                "set corruption.trigger.mask_picture=null to take its alpha channel as the mask, "
                "or save it without transparency"
            )
        _require_equal_sizes(self.picture, mask_picture)
        mask = mask_picture.draw((1, self.size, self.size))
        if not mask.any():
            raise ValueError(
                "corruption.trigger.mask_picture is black at the patch's size, so that no "
                "pixel of the picture would show: give a mask that is white where it shows"
            )
        return mask


@dataclass(frozen=True, kw_only=True)
class OneOf:
    """Several triggers, each of which activates the backdoor: an image carries one of them.

    Which one depends on the image's own pixels, so that it does not change from call to call; all
    are about equally frequent. Mask and pattern are those of all triggers together; where two
    overlap, of the later one.

    Attributes:
        triggers: the triggers, two or more.
    """

    triggers: Sequence[PatternTrigger]

    def __post_init__(self) -> None:
        if len(self.triggers) < 2:
            raise ValueError(
                f"corruption.trigger.triggers has {len(self.triggers)} trigger: give two or more, "
                "or use the trigger itself as corruption.trigger"
            )

    def apply(self, images: Tensor) -> Tensor:
        choice, result = self.choice(images), images.clone()
        for index, trigger in enumerate(self.triggers):
            chosen = choice == index
            result[chosen] = trigger.apply(images[chosen])
        return result

    def choice(self, images: Tensor) -> Tensor:
        """The index ``[n]`` of the trigger that each image carries."""
        shape = images.shape[1:]
        weights = torch.randint(1, _PRIME, tuple(shape), generator=stream(0)).to(images.device)
        sums = [(part.long() * weights).sum((1, 2, 3)) for part in images.split(_CHUNK)]
        return torch.cat(sums) % _PRIME % len(self.triggers)

    def mask(self, shape: Shape) -> Tensor:
        return union_mask(self.triggers, shape)

    def pattern(self, shape: Shape) -> Tensor:
        return joint_pattern(self.triggers, shape)


def union_mask(triggers: Sequence[PatternTrigger], shape: Shape) -> Tensor:
    """The mask ``[H, W]`` of several triggers: 1 where any of them can change a pixel."""
    return torch.stack([trigger.mask(shape) for trigger in triggers]).amax(0)


def joint_pattern(triggers: Sequence[PatternTrigger], shape: Shape) -> Tensor:
    """The pixels ``[C, H, W]`` of several triggers, one drawn over the other."""
    pattern = torch.zeros(*shape)
    for trigger in triggers:
        pattern = torch.where(trigger.mask(shape) > 0, trigger.pattern(shape), pattern)
    return pattern


def require_opacity(name: str, value: float) -> None:
    """Refuse an opacity that is not above 0 and at most 1.

    Raises:
        ValueError: with the name of the setting.
    """
    require(name, value, 0 < value <= 1, "above 0, at most 1")


def _require_position(row: int, column: int) -> None:
    require("corruption.trigger.row", row, row >= 0, "0 or more")
    require("corruption.trigger.column", column, column >= 0, "0 or more")


def _require_equal_sizes(picture: Picture, mask: Picture) -> None:
    if isinstance(picture, SizedPicture) and isinstance(mask, SizedPicture):
        (height, width), (mask_height, mask_width) = picture.size(), mask.size()
        if (height, width) != (mask_height, mask_width):
            raise ValueError(
                f"corruption.trigger.mask_picture is {mask_height}x{mask_width} pixels, and "
                f"corruption.trigger.picture is {height}x{width}: give a mask of the picture's size"
            )


def _place(square: Tensor, row: int, column: int, shape: Shape) -> Tensor:
    """Zeros ``[c, H, W]`` with `square` ``[c, s, s]`` at the row and the column."""
    (channels, size, _), (height, width) = square.shape, shape[1:]
    if row + size > height or column + size > width:
        raise ValueError(
            f"the trigger takes {size}x{size} pixels from row {row} and column {column}, the "
            f"images are {height}x{width}: lower its size, row or column (corruption.trigger.size, "
            "corruption.trigger.row, corruption.trigger.column)"
        )
    placed = torch.zeros(channels, height, width)
    placed[:, row : row + size, column : column + size] = square
    return placed
