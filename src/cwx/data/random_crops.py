"""Random crops and flips of images in files, by torchvision, drawn for each image and epoch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from cwx.data.resizing import DEFAULT_INTERPOLATION, INTERPOLATIONS, Fit
from cwx.functional.rng import stream

# Distinguishes these draws from others of the same seed.
_PURPOSE = 0x63726F70


@dataclass(frozen=True, kw_only=True)
class RandomCrops:
    """Crops a random part of each training image, resizes it to the common size, and flips it.

    The transforms are ``RandomResizedCrop`` and ``RandomHorizontalFlip`` of torchvision, applied to
    the whole image in the file. They are drawn from the seed, the epoch and the index of the image:
    the order of the images, the workers and the ranks change nothing.

    Attributes:
        smallest_area: of the part, as a fraction of the image in 0-1, up to 1; ``None`` for the
            whole image, resized as in evaluation.
        largest_ratio: of the width of the part to its height, or of its height to its width.
        flip: the probability of a flip from left to right, 0-1.
    """

    smallest_area: Annotated[float, "> 0, <= 1"] | None = None
    largest_ratio: Annotated[float, ">= 1, <= 100"] = 4 / 3
    flip: Annotated[float, ">= 0, <= 1"] = 0.0

    def __post_init__(self) -> None:
        area, ratio, flip = self.smallest_area, self.largest_ratio, self.flip
        if not ((area is None or 0 < area <= 1) and 1 <= ratio < float("inf") and 0 <= flip <= 1):
            raise ValueError(
                f"data.random_crops has smallest_area={area}, largest_ratio={ratio} and "
                f"flip={flip}: give an area above 0 and at most 1 or null, a ratio of 1 or more, "
                "and a probability in 0-1"
            )

    @property
    def is_active(self) -> bool:
        """Whether any image is changed."""
        return self.smallest_area is not None or self.flip > 0


@dataclass(frozen=True)
class Drawn:
    """The random crop of one image, in place of the `Fit` of its reader.

    Attributes:
        crops: what is drawn.
        size: height and width of the result.
        fit: the reader's.
        key: seed, epoch and index of the image.
    """

    crops: RandomCrops
    size: tuple[int, int]
    fit: Fit | None
    key: tuple[int, int, int]

    @property
    def minimum(self) -> int:
        return max(self.size)

    @property
    def resampling(self) -> Image.Resampling:
        return INTERPOLATIONS[DEFAULT_INTERPOLATION] if self.fit is None else self.fit.resampling

    def __call__(self, image: Image.Image) -> Image.Image:
        flip = v2.RandomHorizontalFlip(self.crops.flip)
        area, ratio = self.crops.smallest_area, self.crops.largest_ratio
        with _drawn_from(*self.key):
            if area is None:
                result = flip(image if self.fit is None else self.fit(image))
            else:
                # Its names of filters are those of Pillow in lower case.
                mode = InterpolationMode(self.resampling.name.lower())
                crop = v2.RandomResizedCrop([*self.size], (area, 1.0), (1 / ratio, ratio), mode)
                result = flip(crop(image))
        assert isinstance(result, Image.Image)
        return result


@contextmanager
def _drawn_from(*key: int) -> Iterator[None]:
    """Let torchvision, which has the global CPU generator alone, draw from a stream in a block."""
    state = torch.get_rng_state()
    torch.set_rng_state(stream(_PURPOSE, *key).get_state())
    try:
        yield
    finally:
        torch.set_rng_state(state)
