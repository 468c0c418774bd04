"""What a folder of labelled images holds, known before all images are read."""

from collections.abc import Sequence
from functools import cached_property

import torch

from cwx.data.datasets.class_folders import label_files
from cwx.data.datasets.folders import ClassFolders
from cwx.data.image_decoding import stored_size
from cwx.data.splits import ImageSet
from cwx.functional.spacing import evenly_spaced

# Files whose size is read.
_SAMPLE = 64


class FolderPreview:
    """A part of the images of a folder, at any size.

    Args:
        source: the folder, with the names of all outputs of a network.

    Attributes:
        classes: the names of all outputs, in their order.
        present: the names of the classes that have images.
    """

    def __init__(self, source: ClassFolders) -> None:
        self.source = source
        self._by_class, self.classes = source.files()
        self.present: Sequence[str] = [name for name in self.classes if name in self._by_class]
        self._files = label_files(self._by_class, self.classes)

    def __len__(self) -> int:
        return len(self._files)

    def counts(self) -> dict[str, int]:
        """The number of images of each class that has any."""
        return {name: len(self._by_class[name]) for name in self.present}

    @cached_property
    def side(self) -> int | None:
        """The side in pixels of some images, if they are squares of one size; else ``None``."""
        sizes = set()
        for index in evenly_spaced(len(self), _SAMPLE, device=torch.device("cpu")).tolist():
            try:
                sizes.add(stored_size(self._files[index][0]))
            except ValueError:
                # Refused with its name where it is read.
                return None
        width, height = next(iter(sizes))
        return width if len(sizes) == 1 and width == height else None

    def images(self, count: int, size: int | None, resize: int | None) -> ImageSet:
        """At most `count` evenly spaced images, read at this size (``None``: their own)."""
        indices = evenly_spaced(len(self), count, device=torch.device("cpu"))
        source = self.source if size is None else self.source.with_size(size, resize)
        return source.read([self._files[int(index)] for index in indices])
