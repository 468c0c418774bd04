"""A data source of images in tar archives in the layout of WebDataset."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated

from cwx.data.datasets.labelled_images import (
    ImageSettings,
    LabelledImages,
    LabelledImageSource,
    LabelledSplits,
)
from cwx.data.tar_archives import Archives
from cwx.data.webdataset_samples import Fields, read_samples
from cwx.errors import printable
from cwx.functional.class_names import ClassName

_RANGE = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")
_MAX_SHARDS = 1_000_000
_FIELD = re.compile(r"[^:/\s]+(:.+)?")


class WebDataset(LabelledImageSource):
    """Images in uncompressed tar archives (shards), with a label in another member.

    The members ``7.jpg`` and ``7.cls`` are the fields ``jpg`` and ``cls`` of one sample. Shards are
    indexed once; then each image is read at its place, in any order.

    Args:
        root: the folder of all shards.
        train, test: the shards of each split, by their paths in `root`, in this order: names or
            patterns such as ``train-*.tar`` or ``train-{000..146}.tar``, of which all must exist.
            `train` is ``None`` for test images only, for networks that were trained elsewhere.
        image: the fields that may have the image; of several in a sample, the first of these.
        label: the field with the label, such as ``cls``; or a field and a key of the JSON object in
            it, such as ``json:label``. A label is the name of a class or its index.
        classes, synsets: see `LabelledImageSource`.
        size, resize, interpolation, channels, background, white_level: see `ImageSettings`.
        index: the folder for the index of each shard.
    """

    def __init__(
        self,
        *,
        root: str,
        train: str | Annotated[Sequence[str], "not empty, distinct"] | None,
        test: str | Annotated[Sequence[str], "not empty, distinct"],
        image: Annotated[Sequence[str], "not empty, distinct"],
        label: str,
        classes: str | Annotated[Sequence[ClassName], "not empty, distinct"] | None,
        size: Annotated[int, ">= 1, <= 4096"] | None,
        resize: Annotated[int, ">= 1, <= 4096"] | None,
        interpolation: str | None,
        channels: Annotated[int, ">= 1, <= 3"] | None,
        background: str | None,
        white_level: Annotated[float, "> 0, <= 4294967295"] | None,
        synsets: Mapping[ClassName, str] | None,
        index: str,
    ) -> None:
        pixels = ImageSettings(size, resize, interpolation, channels, background, white_level)
        super().__init__(pixels, classes, synsets)
        if not _FIELD.fullmatch(label):
            raise ValueError(
                f"data.source.label is {label!r}: give a field such as cls, or a field and a key "
                "such as json:label"
            )
        self.root, self.train, self.test, self.index = Path(root), train, test, Path(index)
        self.fields = Fields(tuple(name.lower().removeprefix(".") for name in image), label)

    def labelled(self) -> LabelledSplits:
        train = () if self.train is None else self._shards("train", self.train)
        test = self._shards("test", self.test)
        if both := set(train) & set(test):
            raise ValueError(
                f"{printable(min(both))} is in data.source.train and in data.source.test: networks "
                "would be tested on the images of their training; give each split its own shards"
            )
        return LabelledSplits(
            Archives(self.root),
            self._samples("train", train) if train else [],
            self._samples("test", test),
        )

    def _samples(self, split: str, shards: Sequence[Path]) -> LabelledImages:
        samples = list(
            chain.from_iterable(read_samples(shard, self.fields, self.index) for shard in shards)
        )
        if not samples:
            raise ValueError(
                f"the {len(shards)} shards of data.source.{split} have no samples, such as "
                f"{printable(shards[0])}: give shards with members such as 7.jpg and 7.cls"
            )
        return samples

    def _shards(self, split: str, patterns: str | Sequence[str]) -> tuple[Path, ...]:
        """The shards of a split, in order."""
        if not self.root.is_dir():
            raise ValueError(
                f"there is no folder {printable(self.root)}: set data.source.root to the folder of "
                "the shards"
            )
        setting = f"data.source.{split}"
        patterns = [patterns] if isinstance(patterns, str) else patterns
        shards = [path for pattern in patterns for path in self._matches(pattern, setting)]
        if not shards:
            raise ValueError(f"{setting} is empty: name one shard or more")
        if twice := next((path for path in shards if shards.count(path) > 1), None):
            raise ValueError(
                f"{setting} names {printable(twice)} more than once: its images would count twice"
            )
        return tuple(shards)

    def _matches(self, pattern: str, setting: str) -> Iterator[Path]:
        path = PurePosixPath(pattern)
        if not pattern.strip() or path.is_absolute() or ".." in path.parts or "://" in pattern:
            raise ValueError(
                f"{setting} has {pattern!r}: give the path of a shard in data.source.root, which "
                "may have * for any text"
            )
        for name in expand(pattern, setting):
            matches = sorted(self.root.glob(name)) if any(c in name for c in "*?[") else []
            if not matches and (self.root / name).is_file():
                matches = [self.root / name]
            if not matches:
                raise ValueError(
                    f"{setting}: no file in {printable(self.root)} matches {name!r}: correct it, "
                    "or set data.source.root to the folder of the shards"
                )
            yield from matches


def expand(pattern: str, setting: str) -> Iterator[str]:
    """The names that a pattern with ranges stands for.

    >>> list(expand("train-{08..10}.tar", "train"))
    ['train-08.tar', 'train-09.tar', 'train-10.tar']

    Raises:
        ValueError: a range is empty or too long, or braces have another content.
    """
    match = _RANGE.search(pattern)
    if match is None:
        if "{" in pattern or "}" in pattern:
            raise ValueError(
                f"{setting} has {pattern!r}: braces hold a range of numbers, as in {{000..146}}; "
                "give several patterns as a list"
            )
        yield pattern
        return
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + _MAX_SHARDS:
        raise ValueError(
            f"{setting} has the range {match[0]}: give a first number and a last one that is not "
            f"smaller, for at most {_MAX_SHARDS:,} shards"
        )
    for number in range(first, last + 1):
        name = f"{number:0{len(match[1])}d}"
        yield from expand(pattern[: match.start()] + name + pattern[match.end() :], setting)
