"""Corruption of training data: backdoors and label noise (CWX, §5 and §6.3).

A corruption acts on the stored bytes, before any augmentation, and records which images changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from cwx.data.backdoor_plan import (
    PlantedBackdoor,
    check_poison_rate,
    check_rate,
    describe_unchanged,
    plan_backdoor,
    poisonable,
)
from cwx.data.corruption_changes import Changes, measure_changes
from cwx.data.image_files import Reader
from cwx.data.pixel_conversion import PixelRules
from cwx.data.resizing import Fit, stretch_to
from cwx.data.splits import ImageSet
from cwx.data.streamed_images import change_images
from cwx.functional.all_to_all import AllToAll
from cwx.functional.backdoor import Shape, Trigger, Variant, choose
from cwx.functional.class_names import ClassName
from cwx.functional.label_noise import Noise
from cwx.functional.rng import stream


@dataclass(frozen=True)
class CorruptionResult:
    """The result of a corruption.

    Attributes:
        images: all training images, in the order of the clean ones.
        is_corrupted: boolean mask ``[n]``: True where a pixel or the label differs from the clean
            ones.
        backdoor: the planted backdoor; ``None`` if there is none.
        is_cover: boolean mask ``[n]``: True for the corrupted images that keep their label so that
            the network learns not to react to a part of the trigger, or to another one; ``None``
            if there are none.
    """

    images: ImageSet
    is_corrupted: Tensor
    backdoor: PlantedBackdoor | None
    is_cover: Tensor | None = None

    @property
    def is_poisoned(self) -> Tensor:
        """Boolean mask ``[n]`` of the corrupted images that are no cover images."""
        return self.is_corrupted if self.is_cover is None else self.is_corrupted & ~self.is_cover

    @property
    def effective_rate(self) -> float:
        """The fraction of corrupted images, in 0-1; 0 if there are no images."""
        return self.is_corrupted.double().mean().item() if len(self.is_corrupted) else 0.0


Corruption = Callable[[ImageSet, Sequence[str]], CorruptionResult]


@dataclass(frozen=True, kw_only=True)
class NoCorruption:
    """Leaves images and labels unchanged."""

    def __call__(self, images: ImageSet, classes: Sequence[str]) -> CorruptionResult:
        return CorruptionResult(images, torch.zeros(len(images), dtype=torch.bool), None)


@dataclass(frozen=True, kw_only=True)
class Backdoor:
    """Adds a trigger to some training images and sets their labels to the target class.

    Attributes:
        trigger: the pattern added to the poisoned images.
        target: the target class, by name or index; ``None`` with `AllToAll`.
        rate: the fraction of all training images that is poisoned, above 0 and at most 1, for every
            variant.
        variant: selects the images that may be poisoned.
        seed: of the random choice of poisoned images.

    Raises:
        ValueError: the rate is out of range; when called: the rate exceeds what the variant allows,
            a target class does not exist or has no images, the trigger does not fit the images, or
            it changes no pixel of them.
    """

    trigger: Trigger
    target: ClassName
    rate: Annotated[float, ">= 0, <= 1"]
    variant: Variant | AllToAll
    seed: Annotated[int, ">= 0, < 2**63"]

    def __post_init__(self) -> None:
        check_poison_rate(self.rate)

    def __call__(self, images: ImageSet, classes: Sequence[str]) -> CorruptionResult:
        backdoor = plan_backdoor(self.trigger, self.target, self.variant, classes)
        candidates = poisonable(images, classes, backdoor, self.variant)
        indices = choose(candidates, rate=self.rate, total=len(images), generator=stream(self.seed))
        pixels = change_images(images.images, indices, self.trigger.apply)
        labels = images.labels.clone()
        labels[indices] = backdoor.targets(labels[indices])
        poisoned = ImageSet(pixels, labels)
        changes = measure_changes(images, poisoned)
        if not changes.pixels.any():
            raise ValueError(describe_unchanged(self.trigger, len(indices)))
        return CorruptionResult(poisoned, changes.either, backdoor)


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """Redraws some labels; an image counts as corrupted only if its new label differs.

    Attributes:
        kind: the noise that draws the new labels.
        rate: the fraction of all training images whose label is redrawn, in 0-1.
        seed: of the random choice of images and of the noise.

    Raises:
        ValueError: the rate is outside 0-1; when called: there are no images, all belong to one
            class, or a rate above 0 changes no label.
    """

    kind: Noise
    rate: Annotated[float, ">= 0, <= 1"]
    seed: Annotated[int, ">= 0, < 2**63"]

    def __post_init__(self) -> None:
        check_rate(self.rate, "corruption.rate")

    def __call__(self, images: ImageSet, classes: Sequence[str]) -> CorruptionResult:
        if not len(images):
            raise ValueError(
                "label noise needs training images, but the data have none: choose corruption=none"
            )
        if len(images.labels.unique()) < 2:
            raise ValueError(
                "label noise needs training images of two or more classes, but all are of class "
                f"{classes[int(images.labels[0])]!r}: add classes, or choose corruption=none"
            )
        generator = stream(self.seed)
        candidates = torch.arange(len(images))
        indices = choose(candidates, rate=self.rate, total=len(images), generator=generator)
        labels = images.labels.clone()
        labels[indices] = self.kind.draw(labels[indices], classes, generator)
        is_corrupted = labels != images.labels
        if self.rate > 0 and not is_corrupted.any():
            raise ValueError(
                f"corruption.rate is {self.rate}, and {self.kind} changes none of the "
                f"{len(indices)} labels that it selects: raise corruption.rate, or choose another "
                "corruption.kind or corruption.seed"
            )
        return CorruptionResult(ImageSet(images.images, labels), is_corrupted, None)


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A trigger picture from a file, stretched to the size of the images, or of a patch.

    Attributes:
        path: the image file; converted to grey unless the images have three channels.
    """

    path: str

    def draw(self, shape: Shape) -> Tensor:
        """The picture ``[C, H, W]``, pixels in 0-1.

        Raises:
            ValueError: the file is missing, is not an image, or has transparent pixels.
        """
        channels, height, width = shape
        fit = stretch_to(width, height, interpolation="bicubic")
        return self._read(3 if channels == 3 else 1, fit).expand(channels, -1, -1)

    def draw_cutout(self, shape: Shape) -> tuple[Tensor, Tensor]:
        """The colours ``[C, H, W]`` and the alpha channel ``[1, H, W]``, in 0-1.

        The alpha channel is 1 for a file without transparent pixels.

        Raises:
            ValueError: the file is missing or is not an image.
        """
        channels, height, width = shape
        fit = stretch_to(width, height, interpolation="bicubic")
        picture = self._read(4 if channels == 3 else 2, fit)
        return picture[:-1].expand(channels, -1, -1), picture[-1:]

    def size(self) -> tuple[int, int]:
        """Height and width of the file's image.

        Raises:
            ValueError: as `draw_cutout`.
        """
        _, height, width = self._read(2, None).shape
        return height, width

    def _read(self, channels: int, fit: Fit | None) -> Tensor:
        file = Path(self.path)
        if not file.is_file():
            raise ValueError(
                f"there is no trigger picture {file}: set corruption.trigger.picture.path to an "
                "image file, or use the built-in picture of corruption=blended"
            )
        reader = Reader(channels=channels, fit=fit, rules=PixelRules())
        return reader.read([(file, 0)]).images[0] / 255


def check_result(result: object, clean: ImageSet, classes: Sequence[str]) -> Changes:
    """What a corruption changed, if its result fits the clean images and marks these changes.

    Raises:
        ValueError: the result is no `CorruptionResult`, its images or labels do not fit, or
            `CorruptionResult.is_corrupted` is not the mask of the images that differ.
    """
    if not isinstance(result, CorruptionResult) or len(result.images) != len(clean):
        raise ValueError(
            f"corruption returned {type(result).__name__} for {len(clean)} images: "
            "return a cwx.data.corruption.CorruptionResult with all images, in their order"
        )
    images, labels = result.images.images, result.images.labels
    if images.shape != clean.images.shape or images.dtype != torch.uint8:
        raise ValueError(
            f"corruption returned images {list(images.shape)} of {images.dtype}: return bytes "
            f"(torch.uint8) {list(clean.images.shape)}, as the clean images"
        )
    if labels.dtype != torch.int64 or ((labels < 0) | (labels >= len(classes))).any():
        raise ValueError(
            f"corruption returned labels of {labels.dtype} in {labels.min()}-{labels.max()}: "
            f"return class indices (torch.int64) in 0-{len(classes) - 1}"
        )
    changes = measure_changes(clean, result.images)
    if not torch.equal(result.is_corrupted, changes.either):
        raise ValueError(
            f"corruption marks {int(result.is_corrupted.sum())} images as corrupted, and "
            f"{int(changes.either.sum())} differ from the clean images in a pixel or the label: "
            "mark exactly these in CorruptionResult.is_corrupted (a boolean mask)"
        )
    _check_covers(result, changes)
    return changes


def _check_covers(result: CorruptionResult, changes: Changes) -> None:
    covers = result.is_cover
    if covers is None:
        return
    if covers.dtype != torch.bool or covers.shape != changes.labels.shape:
        raise ValueError(
            f"corruption marks cover images by {covers.dtype} {list(covers.shape)}: give a boolean "
            f"mask [{len(changes.labels)}] as CorruptionResult.is_cover"
        )
    if (wrong := covers & (changes.labels | ~changes.either)).any():
        raise ValueError(
            f"corruption marks {int(wrong.sum())} images as covers whose label differs from the "
            "clean one, or whose pixels do not: mark only images with changed pixels and their own "
            "label in CorruptionResult.is_cover"
        )
