"""The usual sizes of images, for sources that can read their images at another size."""

from collections.abc import Iterator
from typing import Protocol, Self, runtime_checkable

from torch import Tensor

from cwx.data.splits import ImageSet

# The sides in pixels of the images that published networks were trained on.
_SIDES = (28, 32, 48, 64, 96, 128, 160, 192, 224, 256, 299)
# Sides of the crop and of the resized image; most programs keep 7/8 of the side.
_CROPS = ((224, 256), (224, 232), (299, 342))


@runtime_checkable
class Resizable(Protocol):
    """A source of images that it resizes to a square."""

    def with_size(self, size: int, resize: int | None) -> Self:
        """The same source with another `size` and `resize` (``None`` for `size`)."""

    def test_images(self, numbers: Tensor) -> ImageSet:
        """The images of these test files ``[n]``, in this order.

        Args:
            numbers: of the files among all test files, also those that cannot be read.
        """


def usual_sizes(source: Resizable, side: int) -> Iterator[tuple[str, Resizable]]:
    """The source with each usual size, and the settings that give it.

    Sizes that equal the present ones are among them.

    Args:
        side: of the present images, in pixels.
    """
    sizes = [(side, None), (side, round(side * 8 / 7)), *((s, None) for s in _SIDES), *_CROPS]
    for size, resize in dict.fromkeys(sizes):
        resized = "null" if resize is None else resize
        settings = f"data.source.size={size} data.source.resize={resized}"
        yield settings, source.with_size(size, resize)
