"""Data sources of images that lie in larger files, each with a label: a number or a name."""

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from torch import Tensor

from cwx.data.class_order import in_order
from cwx.data.datasets.channels import check_channels, common_channels
from cwx.data.datasets.class_folders import preview_names
from cwx.data.datasets.folders import checked_names, read_names
from cwx.data.file_splits import FileSplits
from cwx.data.image_files import Reader
from cwx.data.pixel_conversion import PixelRules
from cwx.data.resizing import Fit, crop_if_sized
from cwx.data.splits import ImageSet, Splits, synsets_by_index
from cwx.data.stored_images import ImageContainer, ImageFile, LabelledFiles
from cwx.errors import closest, printable
from cwx.functional.class_names import ClassName

log = logging.getLogger(__name__)

LabelledImages = Sequence[tuple[ImageFile, str]]
"""Encoded images, each with its label: the name of its class, or the index as text."""


@dataclass(frozen=True)
class ImageSettings:
    """How images become pixels: the settings that all sources of images have.

    Attributes:
        size: side in pixels of the central crop; ``None`` to keep images of one common size.
        resize: pixels to which the shorter side is resized before cropping; ``None`` for `size`.
        interpolation, background, white_level, channels: see
            `cwx.data.datasets.folders.ImageFolder`.
    """

    size: int | None
    resize: int | None
    interpolation: str | None
    channels: int | None
    background: str | None
    white_level: float | None

    def __post_init__(self) -> None:
        check_channels(self.channels)
        # Refuse wrong settings before the files are read.
        self.fit()

    def fit(self) -> Fit | None:
        return crop_if_sized(self.size, self.resize, self.interpolation)

    def reader(self, channels: int) -> Reader:
        rules = PixelRules(self.background, self.white_level, "data.source.")
        return Reader(channels=channels, fit=self.fit(), rules=rules)


@dataclass(frozen=True)
class LabelledSplits:
    """The images of both splits, with their labels.

    Attributes:
        container: has the images.
        train, test: the splits; there may be no training images.
        classes: the names of the classes that the data state; ``None`` for none.
    """

    container: ImageContainer
    train: LabelledImages
    test: LabelledImages
    classes: Sequence[str] | None = None


class LabelledImageSource(ABC):
    """A source whose images have labels.

    Args:
        pixels: how images become pixels.
        classes: the names of all classes in the order of their indices: a list, or a text file with
            one per line; ``None`` for those that the data state, or else the labels themselves:
            sorted, or by number if all are numbers.
        synsets: the WordNet 3.0 noun id of each class, by class name; ``None`` to use the names
            if all are such ids, and no synsets otherwise.
    """

    def __init__(
        self,
        pixels: ImageSettings,
        classes: str | Annotated[Sequence[ClassName], "not empty, distinct"] | None,
        synsets: Mapping[ClassName, str] | None,
    ) -> None:
        # Refuse wrong settings before the files are read.
        pixels.reader(3)
        self.pixels, self.names, self.synsets = pixels, classes, synsets

    @abstractmethod
    def labelled(self) -> LabelledSplits:
        """The images of both splits; no image is decoded.

        Raises:
            ValueError: the data are missing or invalid; the message names the remedy.
        """

    @property
    def interpolation(self) -> str | None:
        return self.pixels.interpolation

    @property
    def fit(self) -> Fit | None:
        return self.pixels.fit()

    def prepare(self) -> None:
        return

    def load(self) -> Splits:
        return self.listing().read()

    def listing(self) -> FileSplits:
        """The images of both splits, in the order of `load`."""
        splits = self.labelled()
        root = splits.container.root
        classes, origin = self._classes(splits)
        train, self._test = (
            indexed(images, classes, origin) for images in (splits.train, splits.test)
        )
        if train and (untrained := set(range(len(classes))) - {label for _, label in train}):
            names = preview_names(classes[index] for index in untrained)
            log.warning("%s has no training images of classes: %s", printable(root), names)
        # Check the synsets first: reading the images takes longer.
        synsets = synsets_by_index(self.synsets, classes)
        self._channels = self.pixels.channels or common_channels(
            [{"": [image for image, _ in images]} for images in (train, self._test)]
        )
        return FileSplits(root, train, self._test, classes, synsets, self._reader, splits.container)

    def with_size(self, size: int, resize: int | None) -> Self:
        """The same source, loaded, with another `size` and `resize`."""
        source = copy.copy(self)
        source.pixels = ImageSettings(**{**vars(self.pixels), "size": size, "resize": resize})
        return source

    def test_images(self, numbers: Tensor) -> ImageSet:
        """The images of these test files, in this order, of a loaded source."""
        return self._reader().read([self._test[int(number)] for number in numbers])

    def _reader(self) -> Reader:
        return self.pixels.reader(self._channels)

    def _classes(self, splits: LabelledSplits) -> tuple[tuple[str, ...], str]:
        """The names of the classes, and what states them, for messages."""
        if isinstance(self.names, str):
            return read_names(Path(self.names)), self.names
        if self.names is not None:
            names, origin = [str(name) for name in self.names], "data.source.classes"
        elif splits.classes is not None:
            names, origin = list(splits.classes), f"the data set {printable(splits.container.root)}"
        else:
            images = splits.train or splits.test
            origin = f"the {'training' if splits.train else 'test'} images"
            return checked_names(in_order(sorted({label for _, label in images})), origin), origin
        return checked_names(names, origin), origin


def indexed(images: LabelledImages, classes: Sequence[str], origin: str) -> LabelledFiles:
    """The images with the indices of their classes.

    A label is the name of a class, or the index if no class has a number for a name.

    Args:
        origin: what states the classes, for messages.

    Raises:
        ValueError: a label is neither.
    """
    index = {name: position for position, name in enumerate(classes)}
    if not any(_is_number(name) for name in classes):
        index |= {str(position): position for position in range(len(classes))}
    unknown = next((item for item in images if item[1] not in index), None)
    if unknown is not None:
        image, label = unknown
        near = ", ".join(closest(label, classes)) or ", ".join(classes[:3])
        raise ValueError(
            f"{printable(image)} has the label {label!r}, which is none of the {len(classes)} "
            f"classes of {origin} (such as {near}): correct the label, or set data.source.classes "
            "to the names of all classes in the order of their numbers"
        )
    return [(image, index[label]) for image, label in images]


def _is_number(name: str) -> bool:
    return name.isascii() and name.removeprefix("-").isdigit()
