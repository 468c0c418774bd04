"""Corruption of training data: backdoors and label noise (CWX, §5 and §6.3; C12, C15).

A corruption acts on the stored bytes, before any augmentation, and records which images changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cwx.data.image_files import Reader
from cwx.data.pixel_conversion import PixelRules
from cwx.data.resizing import stretch_to
from cwx.data.splits import ImageSet
from cwx.functional.backdoor import Shape, Trigger, Variant, choose
from cwx.functional.class_names import class_index
from cwx.functional.label_noise import Noise
from cwx.functional.rng import stream


@dataclass(frozen=True)
class PlantedBackdoor:
    """A backdoor in a training set: images with `trigger` carry the label `target`."""

    trigger: Trigger
    target: int


@dataclass(frozen=True)
class CorruptionResult:
    """The result of a corruption.

    Attributes:
        images: all training images, in the order of the clean ones.
        is_corrupted: boolean mask ``[n]``: True where an image got a trigger or another label.
        backdoor: the planted backdoor; ``None`` if there is none.
    """

    images: ImageSet
    is_corrupted: Tensor
    backdoor: PlantedBackdoor | None

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
        target: the target class, by name or index.
        rate: the fraction of all training images that is poisoned, in 0-1, for every variant.
        variant: selects the images that may be poisoned.
        seed: of the random choice of poisoned images.

    Raises:
        ValueError: the rate is outside 0-1; when called: the rate exceeds what the variant allows,
            the target class does not exist, or the trigger does not fit the images.
    """

    trigger: Trigger
    target: str | int
    rate: float
    variant: Variant
    seed: int

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def __call__(self, images: ImageSet, classes: Sequence[str]) -> CorruptionResult:
        target = class_index(self.target, classes)
        indices = choose(
            self.variant.candidates(images.labels, target),
            rate=self.rate,
            total=len(images),
            generator=stream(self.seed),
        )
        pixels, labels = images.images.clone(), images.labels.clone()
        pixels[indices] = self.trigger.apply(images.images[indices])
        labels[indices] = target
        is_corrupted = torch.zeros(len(images), dtype=torch.bool)
        is_corrupted[indices] = True
        backdoor = PlantedBackdoor(self.trigger, target)
        return CorruptionResult(ImageSet(pixels, labels), is_corrupted, backdoor)


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """Redraws some labels; an image counts as corrupted only if its new label differs.

    Attributes:
        kind: the noise that draws the new labels.
        rate: the fraction of all training images whose label is redrawn, in 0-1.
        seed: of the random choice of images and of the noise.

    Raises:
        ValueError: the rate is outside 0-1; when called: there are no images, or all belong to
            one class.
    """

    kind: Noise
    rate: float
    seed: int

    def __post_init__(self) -> None:
        _check_rate(self.rate)

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
        return CorruptionResult(ImageSet(images.images, labels), labels != images.labels, None)


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A trigger picture from a file, stretched to the size of the images.

    Attributes:
        path: the image file; converted to grey unless the images have three channels.
    """

    path: str

    def draw(self, shape: Shape) -> Tensor:
        """The picture ``[C, H, W]``, pixels in 0-1.

        Raises:
            ValueError: the file is missing or is not an image.
        """
        file = Path(self.path)
        if not file.is_file():
            raise ValueError(
                f"there is no trigger picture {file}: set corruption.trigger.picture.path to an "
                "image file, or use the built-in picture of corruption=blended"
            )
        channels, height, width = shape
        reader = Reader(
            channels=3 if channels == 3 else 1,
            fit=stretch_to(width, height, interpolation="bicubic"),
            rules=PixelRules(),
        )
        picture = reader.read([(file, 0)]).images[0]
        return (picture / 255).expand(channels, -1, -1)


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"corruption.rate is {rate}: give a fraction of the images in 0-1")
