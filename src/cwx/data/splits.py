"""Where labelled images come from: each source yields train and test sets as byte tensors."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cwx.errors import closest


@dataclass(frozen=True)
class ImageSet:
    """Images ``[n, C, H, W]`` as bytes in 0-255 and labels ``[n]`` as int64 class indices."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ImageSet":
        return ImageSet(self.images.to(device), self.labels.to(device))

    def at(self, indices: Tensor) -> "ImageSet":
        """Those at `indices`, or where boolean mask are true."""
        return ImageSet(self.images[indices], self.labels[indices])

    def spread(self, count: int | None) -> "ImageSet":
        """At most `count` images, evenly spaced in their order; null for all."""
        return self.at(self.places(count)) if count is not None and count < len(self) else self

    def places(self, count: int | None) -> Tensor:
        """Where those of `spread` lie."""
        taken = len(self) if count is None else min(count, len(self))
        # Sets may lie in the order of their classes.
        return torch.arange(taken, device=self.labels.device) * len(self) // max(taken, 1)

    def first(self, per_class: int) -> "ImageSet":
        """At most `per_class` images of each class, the first of them, in their order."""
        chosen = [(self.labels == c).nonzero()[:per_class, 0] for c in self.labels.unique()]
        # There may be none.
        return self.at(torch.cat([self.labels.new_empty(0), *chosen]).sort().values)

    def none(self) -> "ImageSet":
        """No images of the same shape."""
        return ImageSet(self.images[:0].clone(), self.labels[:0].clone())


@dataclass(frozen=True)
class Splits:
    """A data set: its train and test images and what each class is, by index.

    There may be no training images, and classes without test images.

    Attributes:
        classes: names that differ from each other and are for people: they may hold any printable
            character, also a slash, and make no path.
        synsets: the id of each class among the nouns of WordNet 3.0, such as ``n02084071`` for
            dogs; ``None`` where the classes are no nouns of WordNet.

    Raises:
        ValueError: there is not one synset a class, or one is no such id.
    """

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    synsets: tuple[str, ...] | None = None

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

    def check(self) -> None:
        """Refuse what a study could not read, as a source of a user's own may give.

        Raises:
            ValueError: images are not bytes of one size, or labels are no class indices.
        """
        for name, found in (("train", self.train), ("test", self.test)):
            images, labels = found.images, found.labels
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
                    f"and {len(self.classes)} classes: name each class, in the order of the labels"
                )


NOUN = re.compile("n[0-9]{8}")


def synsets_by_index(
    synsets: Mapping[str, str] | None, classes: Sequence[str]
) -> tuple[str, ...] | None:
    """The synset of each class by index, from those by its name.

    >>> synsets_by_index({"dog": "n02084071", "cat": "n02121620"}, ["cat", "dog"])
    ('n02121620', 'n02084071')

    Raises:
        ValueError: a name is that of no class, or a class has no synset.
    """
    if synsets is None:
        return None
    # YAML reads a name such as 7 as a number.
    named = {str(name): synset for name, synset in synsets.items()}
    faults = []
    if unknown := [name for name in named if name not in classes]:
        near = closest(unknown[0], classes)
        faults.append(f"no class is called {_listed(unknown)} (the nearest are {', '.join(near)})")
    if missing := [name for name in classes if name not in named]:
        faults.append(f"none is given for {_listed(missing)}")
    if faults:
        raise ValueError(
            f"data.source.synsets must give one synset for each of the {len(classes)} classes, by "
            f"name: {'; '.join(faults)}; correct the names, or set data.source.synsets=null"
        )
    return tuple(named[name] for name in classes)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"


class Source(Protocol):
    def prepare(self) -> None:
        """Download what is missing; called by one process a machine."""

    def load(self) -> Splits:
        """Read both splits into memory.

        Raises:
            ValueError: the data are missing or unfit, with the remedy.
        """
