"""Triggers that are weak in training and strong in tests, with cover images.

Qi et al. 2023, *Revisiting the Assumption of Latent Separability for Backdoor Defenses*. Poisoned
training images carry a part of the trigger, so that they do not lie together in a layer of the
network; cover images carry such a part too, and keep their label. Images are bytes
``[n, C, H, W]`` in 0-255.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from cwx.functional.backdoor import Blend, PatternTrigger, Picture, Shape
from cwx.functional.patches import joint_pattern, require_opacity, union_mask
from cwx.functional.trigger_settings import require


@dataclass(frozen=True, kw_only=True)
class AdaptiveBlend:
    """Blends a picture into test images, and random pieces of it into training images.

    The image is divided into k x k pieces. In each poisoned image and each cover image, a random
    selection of them shows the picture with the ratio λ; in test images, all show it with λ'.

    Attributes:
        picture: the picture.
        ratio: λ, above 0 and at most 1.
        test_ratio: λ', above 0 and at most 1.
        pieces: k, pieces along each side.
        fraction: of the k² pieces that a training image shows, above 0 and at most 1.
    """

    picture: Picture
    ratio: Annotated[float, "> 0, <= 1"]
    test_ratio: Annotated[float, "> 0, <= 1"]
    pieces: Annotated[int, ">= 1"]
    fraction: Annotated[float, "> 0, <= 1"]

    def __post_init__(self) -> None:
        for name, value in (
            ("ratio", self.ratio),
            ("test_ratio", self.test_ratio),
            ("fraction", self.fraction),
        ):
            require_opacity(f"corruption.trigger.{name}", value)
        require("corruption.trigger.pieces", self.pieces, self.pieces >= 1, "1 or more")
        if not self._count():
            raise ValueError(
                f"corruption.trigger.fraction is {self.fraction}, which is less than one of the "
                f"{self.pieces**2} pieces: give {1 / self.pieces**2:.2g} or more"
            )

    def apply(self, images: Tensor) -> Tensor:
        return Blend(ratio=self.test_ratio, picture=self.picture).apply(images)

    def mask(self, shape: Shape) -> Tensor:
        return torch.ones(*shape[1:])

    def pattern(self, shape: Shape) -> Tensor:
        return self.picture.draw(shape)

    def poison(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Copies of the images, each with its own random pieces."""
        blended = Blend(ratio=self.ratio, picture=self.picture).apply(images)
        shown = self._pieces(images.shape[1:], len(images), generator)
        return torch.where(shown[:, None].to(images.device), blended, images)

    def cover(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """As `poison`."""
        return self.poison(images, generator)

    def _count(self) -> int:
        return round(self.fraction * self.pieces**2)

    def _pieces(self, shape: Shape, images: int, generator: torch.Generator) -> Tensor:
        """Boolean masks ``[n, H, W]`` of the pieces that each image shows."""
        height, width = shape[1:]
        if self.pieces > min(height, width):
            raise ValueError(
                f"corruption.trigger.pieces is {self.pieces}, and the images are {height}x{width}: "
                f"give {min(height, width)} or less"
            )
        rows, columns = (torch.arange(side) * self.pieces // side for side in (height, width))
        piece = rows[:, None] * self.pieces + columns
        shown = torch.zeros(images, self.pieces**2, dtype=torch.bool)
        for row in shown:
            row[torch.randperm(self.pieces**2, generator=generator)[: self._count()]] = True
        return shown[:, piece]


@dataclass(frozen=True, kw_only=True)
class FaintPatch:
    """A patch that training images carry with an opacity of less than 1.

    Attributes:
        patch: the patch.
        opacity: in training images, above 0 and at most 1.
        in_test: whether test images carry it, with opacity 1.
    """

    patch: PatternTrigger
    opacity: Annotated[float, "> 0, <= 1"]
    in_test: bool

    def __post_init__(self) -> None:
        require_opacity("the opacity of a patch of corruption.trigger.patches", self.opacity)

    def fade(self, images: Tensor) -> Tensor:
        """Copies of the images with the patch at its opacity."""
        patched = self.patch.apply(images).float()
        return torch.lerp(images.float(), patched, self.opacity).round().byte()


@dataclass(frozen=True, kw_only=True)
class AdaptivePatch:
    """Several faint patches in training, one per image, and some of them together in tests.

    The poisoned images, in the order of their random choice, carry the patches in turn, and so do
    the cover images.

    Attributes:
        patches: the patches; one or more are in test images.
    """

    patches: Sequence[FaintPatch]

    def __post_init__(self) -> None:
        if not self._in_test():
            raise ValueError(
                f"none of the {len(self.patches)} patches of corruption.trigger.patches is in test "
                "images: set in_test=true for one or more"
            )

    def apply(self, images: Tensor) -> Tensor:
        result = images.clone()
        for patch in self._in_test():
            result = patch.apply(result)
        return result

    def mask(self, shape: Shape) -> Tensor:
        return union_mask(self._in_test(), shape)

    def pattern(self, shape: Shape) -> Tensor:
        return joint_pattern(self._in_test(), shape)

    def poison(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Copies of the images, of which the i-th carries the patch i modulo their number."""
        result = images.clone()
        for index, patch in enumerate(self.patches):
            turn = slice(index, None, len(self.patches))
            result[turn] = patch.fade(images[turn])
        return result

    def cover(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """As `poison`."""
        return self.poison(images, generator)

    def _in_test(self) -> list[PatternTrigger]:
        return [patch.patch for patch in self.patches if patch.in_test]
