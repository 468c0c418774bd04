"""Corruption of training data: backdoors and label noise (CWX, §5 and §6.3; C12, C15).

It works on the stored bytes, before any augmentation, and keeps a record of what it corrupted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cwx.data.image_files import Reader
from cwx.data.splits import ImageSet
from cwx.functional.backdoor import Shape, Trigger, Variant, choose
from cwx.functional.class_names import class_index
from cwx.functional.label_noise import Noise
from cwx.functional.rng import stream


@dataclass(frozen=True)
class Planted:
    """A backdoor in a set of images: what carries `trigger` is taught to be class `target`."""

    trigger: Trigger
    target: int


@dataclass(frozen=True)
class Corrupted:
    """What a corruption leaves.

    Attributes:
        images: in the order of the clean ones.
        corrupted: boolean mask ``[n]``: which images carry a trigger or another label than before.
        backdoor: the one planted, if one was.
    """

    images: ImageSet
    is_corrupted: Tensor
    backdoor: Planted | None

    @property
    def effective_rate(self) -> float:
        """The share in 0-1 of images that were corrupted, 0 if there are none."""
        return self.is_corrupted.double().mean().item() if len(self.is_corrupted) else 0.0


Corruption = Callable[[ImageSet, Sequence[str]], Corrupted]


@dataclass(frozen=True, kw_only=True)
class NoCorruption:
    """Images and labels as they are."""

    def __call__(self, images: ImageSet, classes: Sequence[str]) -> Corrupted:
        return Corrupted(images, torch.zeros(len(images), dtype=torch.bool), None)


@dataclass(frozen=True, kw_only=True)
class Backdoor:
    """Puts a trigger into some images and labels them as the target.

    Attributes:
        trigger: what they carry.
        target: a class, by its name or its index.
        rate: the share in 0-1 of all training images that is poisoned, in every variant.
        variant: which images may be poisoned.
        seed: of the choice among them.

    Raises:
        ValueError: the rate is out of range or, when called, more than the variant allows; there
            is no such class; the trigger does not fit the images.
    """

    trigger: Trigger
    target: str | int
    rate: float
    variant: Variant
    seed: int

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def __call__(self, images: ImageSet, classes: Sequence[str]) -> Corrupted:
        target = class_index(self.target, classes)
        chosen = choose(
            self.variant.candidates(images.labels, target),
            rate=self.rate,
            total=len(images),
            generator=stream(self.seed),
        )
        pixels, labels = images.images.clone(), images.labels.clone()
        pixels[chosen] = self.trigger.apply(images.images[chosen])
        labels[chosen] = target
        is_corrupted = torch.zeros(len(images), dtype=torch.bool)
        is_corrupted[chosen] = True
        return Corrupted(ImageSet(pixels, labels), is_corrupted, Planted(self.trigger, target))


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """Changes some labels; an image counts as corrupted if its label really differs.

    Attributes:
        kind: what stands in place of the labels.
        rate: the share in 0-1 of all training images whose label is at stake.
        seed: of the choice among them and of the noise.

    Raises:
        ValueError: the rate is out of range or, when called, all images are of one class.
    """

    kind: Noise
    rate: float
    seed: int

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def __call__(self, images: ImageSet, classes: Sequence[str]) -> Corrupted:
        if not len(images):
            raise ValueError(
                "label noise needs training images, and the data have none: choose corruption=none"
            )
        if len(images.labels.unique()) < 2:
            raise ValueError(
                "label noise needs training images of two classes or more, and these are all of "
                f"{classes[int(images.labels[0])]!r}: add classes, or choose corruption=none"
            )
        generator = stream(self.seed)
        every = torch.arange(len(images))
        chosen = choose(every, rate=self.rate, total=len(images), generator=generator)
        labels = images.labels.clone()
        labels[chosen] = self.kind.draw(labels[chosen], classes, generator)
        return Corrupted(ImageSet(images.images, labels), labels != images.labels, None)


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A picture from a file, stretched to the size of the images.

    Attributes:
        path: the file; images of other than three channels get its grey version.
    """

    path: str

    def draw(self, shape: Shape) -> Tensor:
        """The picture ``[C, H, W]`` in unit pixels.

        Raises:
            ValueError: the file is missing or is no image.
        """
        file = Path(self.path)
        if not file.is_file():
            raise ValueError(
                f"there is no trigger picture {file}: set corruption.trigger.picture.path to an "
                "image file, or take the drawn one of corruption=blended"
            )
        channels, height, width = shape
        read = Reader(
            channels=3 if channels == 3 else 1,
            fit=lambda image: image.resize((width, height), Image.Resampling.BICUBIC),
        )
        picture = read.read([(file, 0)]).images[0]
        return (picture / 255).expand(channels, -1, -1)


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"corruption.rate is {rate}: give a share of the images in 0-1")
