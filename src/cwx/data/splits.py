"""Labelled image sets as byte tensors, and the protocol of data sources."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cwx.data.streamed_images import Images, StreamedImages
from cwx.functional.class_names import ClassName, class_indices
from cwx.functional.spacing import evenly_spaced_by_class

# Images in memory that are handled at a time.
_CHUNK = 4096


@dataclass(frozen=True)
class ImageSet:
    """Images ``[n, C, H, W]`` as bytes in 0-255 and labels ``[n]`` as int64 class indices.

    The images are in memory, or in files (`cwx.data.streamed_images`): to index them gives a tensor
    in both cases, and `batches` and `at` need memory for no more than is asked for.
    """

    images: Images
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ImageSet":
        return ImageSet(self.images.to(device), self.labels.to(device))

    def at(self, indices: Tensor) -> "ImageSet":
        """The images at `indices`, or where a boolean mask is True; files are not decoded yet."""
        if isinstance(self.images, StreamedImages):
            return ImageSet(self.images.select(indices), self.labels[indices])
        return ImageSet(self.images[indices], self.labels[indices])

    def resident(self) -> "ImageSet":
        """The same images in memory."""
        return ImageSet(self.images[:], self.labels)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All images and labels once, in order, in parts that take little memory."""
        chunks = (
            self.images.chunks()
            if isinstance(self.images, StreamedImages)
            else self.images.split(_CHUNK)
        )
        start = 0
        for chunk in chunks:
            yield chunk, self.labels[start : start + len(chunk)]
            start += len(chunk)

    def spread(self, count: int | None) -> "ImageSet":
        """At most `count` images, evenly spaced among those of all classes; ``None`` for all."""
        if count is None or count >= len(self):
            return self
        return self.at(self.spread_indices(count))

    def spread_indices(self, count: int | None) -> Tensor:
        """The increasing indices of the images that `spread` selects."""
        return evenly_spaced_by_class(self.labels, count)

    def first(self, per_class: int) -> "ImageSet":
        """The first `per_class` images of each class (or fewer), in their order in the set."""
        indices = [(self.labels == c).nonzero()[:per_class, 0] for c in self.labels.unique()]
        # The first part is empty, for sets without images.
        return self.at(torch.cat([self.labels.new_empty(0), *indices]).sort().values)

    def empty(self) -> "ImageSet":
        """A set of 0 images of the same shape."""
        return ImageSet(self.images[:0].clone(), self.labels[:0].clone())


@dataclass(frozen=True)
class Splits:
    """A data set: training and test images, class names and WordNet ids.

    Training images may be absent, and classes may lack test images.

    Attributes:
        train: training images.
        test: test images.
        classes: the name of each class, by index. Names are unique. They may contain any printable
            character, including a slash: never use them in paths.
        synsets: the WordNet 3.0 noun id of each class, by index, such as ``n02084071`` for dogs;
            ``None`` if the classes are not WordNet nouns.
        test_files: the number of each test image among all test files of the source ``[t]``;
            ``None`` if no file is left out.

    Raises:
        ValueError: the number of synsets differs from that of classes, or an id is malformed.
    """

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    synsets: tuple[str, ...] | None = None
    test_files: Tensor | None = None

    def __post_init__(self) -> None:
        if self.synsets is None:
            return
        if len(self.synsets) != len(self.classes):
            raise ValueError(
                f"there are {len(self.synsets)} synsets for {len(self.classes)} classes: give one "
                "for each class, or none at all"
            )
        for name, synset in zip(self.classes, self.synsets, strict=True):
            if not NOUN.fullmatch(synset):
                raise ValueError(
                    f"the synset of class {name!r} is {synset!r}: give the id of a WordNet 3.0 "
                    "noun, an n and eight digits such as n02084071, or no synsets for any class"
                )

    def test_file_numbers(self, indices: Tensor) -> Tensor:
        """The numbers of the files of these test images ``[n]``, for `Resizable.test_images`."""
        return indices if self.test_files is None else self.test_files[indices.cpu()]

    def check(self) -> None:
        """Validate class names, dtypes, shapes and labels, which a user's own source may get wrong.

        Raises:
            ValueError: names of classes are not unique texts, images are not bytes of one size, or
                labels are not class indices.
        """
        self._check_classes()
        for name, image_set in (("train", self.train), ("test", self.test)):
            images, labels = image_set.images, image_set.labels
            size = tuple(self.test.images.shape[1:])
            if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != size:
                raise ValueError(
                    f"data.source gives {name} images {list(images.shape)} of {images.dtype}: give "
                    "bytes (torch.uint8) [n, channels, height, width], in train and test alike"
                )
            if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
                raise ValueError(
                    f"data.source gives {name} labels {list(labels.shape)} of {labels.dtype} for "
                    f"{len(images)} images: give a class index (torch.int64) for each"
                )
            if ((labels < 0) | (labels >= len(self.classes))).any():
                raise ValueError(
                    f"data.source gives {name} labels in {int(labels.min())}-{int(labels.max())}, "
                    f"but {len(self.classes)} classes: name each class, in the order of the labels"
                )

    def _check_classes(self) -> None:
        for name in self.classes:
            if not isinstance(name, str) or not name.strip():
                raise ValueError(
                    f"data.source names a class {name!r}: give a text that is not empty for each"
                )
        if twice := [name for name, count in Counter(self.classes).items() if count > 1]:
            raise ValueError(
                f"data.source names {self.classes.count(twice[0])} classes {twice[0]!r}: give each "
                "class a name of its own"
            )


NOUN = re.compile("n[0-9]{8}")


def synsets_by_index(
    synsets: Mapping[ClassName, str] | None, classes: Sequence[str]
) -> tuple[str, ...] | None:
    """Order synsets, given by class name, by class index; ``None`` for the names if all are ids.

    >>> synsets_by_index({"dog": "n02084071", "cat": "n02121620"}, ["cat", "dog"])
    ('n02121620', 'n02084071')
    >>> synsets_by_index(None, ["n02084071", "n02121620"])
    ('n02084071', 'n02121620')

    Raises:
        ValueError: a name is not a class or is given twice, or a class has no synset.
    """
    if synsets is None:
        return tuple(classes) if all(map(NOUN.fullmatch, classes)) else None
    setting = "data.source.synsets"
    try:
        indices = class_indices(synsets, classes, setting)
    except ValueError as error:
        raise ValueError(f"{error}; {setting}=null gives none to any class") from error
    if missing := [name for index, name in enumerate(classes) if index not in indices]:
        raise ValueError(
            f"{setting} gives no synset to {_first_name(missing)} of the {len(classes)} classes: "
            f"give each class one, by its name, or set {setting}=null"
        )
    by_index = dict(zip(indices, synsets.values(), strict=True))
    return tuple(by_index[index] for index in range(len(classes)))


def _first_name(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"


class Source(Protocol):
    """Provides the images of a study."""

    def prepare(self) -> None:
        """Download missing files; called by one process per machine."""

    def load(self) -> Splits:
        """Read both splits into memory.

        Raises:
            ValueError: the data are missing or invalid; the message names the remedy.
        """
