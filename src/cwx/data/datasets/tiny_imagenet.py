"""Tiny ImageNet, in the published layout or in one folder per class."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cwx.data.datasets.class_folders import (
    class_order,
    files_by_class,
    label_files,
    match_listing,
    preview_names,
)
from cwx.data.datasets.download import Archive, fetch
from cwx.data.file_splits import FileSplits
from cwx.data.image_files import Reader
from cwx.data.pixel_conversion import PixelRules
from cwx.data.resizing import crop_if_sized
from cwx.data.splits import NOUN, Splits
from cwx.data.stored_images import LabelledFiles
from cwx.storage.regular_files import read_regular_text

ARCHIVE = Archive(
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    md5="90528d7ca1a48142e341f4ef8d21d0de",
    part="tiny-imagenet-200",
)


# The bounding boxes of a class, beside its images.
_BOXES = ("*_boxes.txt",)
# The published lists have up to 3 MB.
_MAX_LISTING_BYTES = 2**26


class TinyImageNet:
    """Tiny ImageNet, 3x64x64, tested on its labelled validation split.

    200 classes of 500 training and 50 validation images (Le and Yang, Tiny ImageNet Visual
    Recognition Challenge, CS231n, 2015); the published test images have no labels. A subset of the
    classes loads as well. Class indices follow the sorted WordNet ids, which are the synsets. A
    class name is the first word of the synset, followed by the id if two classes share that word.

    Args:
        root: the folder with ``words.txt`` and either ``train/<id>/images/``, ``val/images/`` and
            ``val/val_annotations.txt`` (as published), or ``train/<id>/`` and ``val/<id>/``. If
            ``wnids.txt`` exists, the classes must be the ones that it lists.
        size: side in pixels to which every image is resized; ``None`` for the published 64.
        interpolation: the filter that resizes images, a name of
            `cwx.data.resizing.INTERPOLATIONS`; ``None`` for that of most published weights.
        download: whether to download a missing data set into the parent folder of `root`.
    """

    def __init__(
        self,
        *,
        root: str,
        size: Annotated[int, ">= 1, <= 4096"] | None,
        interpolation: str | None,
        download: bool,
    ) -> None:
        self.root, self.download = Path(root), download
        self.interpolation = interpolation
        self.fit = crop_if_sized(size, None, interpolation)

    def prepare(self) -> None:
        if self.download:
            fetch(ARCHIVE, self.root, self.root.parent)

    def load(self) -> Splits:
        return self.listing().read()

    def listing(self) -> FileSplits:
        """The files of both splits, in the order of `load`."""
        train = files_by_class(self.root / "train", self._remedy(), _BOXES)
        ids = class_order(train, self.root / "train")
        self._check_ids(ids)
        names = self._names(ids)
        test = self._validation(ids)
        # Both splits are of one size.
        reader = Reader(channels=3, fit=self.fit, rules=PixelRules())
        return FileSplits(self.root, label_files(train, ids), test, names, ids, lambda: reader)

    def _remedy(self) -> str:
        return ARCHIVE.manual_steps(self.root, self.root.parent)

    def _check_ids(self, ids: Sequence[str]) -> None:
        if invalid := [name for name in ids if not NOUN.fullmatch(name)]:
            raise ValueError(
                f"{self.root / 'train'} has a folder {invalid[0]!r}, which is not a WordNet id "
                "such as n01443537: remove it, or read the folders with data=image_folder"
            )
        listing = self.root / "wnids.txt"
        if not listing.is_file():
            return
        known = set(_text(listing).split())
        if different := known.symmetric_difference(ids):
            raise ValueError(
                f"{listing} and {self.root / 'train'} do not hold the same classes: "
                f"{preview_names(different)}; unpack both again, or remove {listing.name} to use "
                "the existing classes"
            )

    def _names(self, ids: Sequence[str]) -> tuple[str, ...]:
        listing = self.root / "words.txt"
        if not listing.is_file():
            raise ValueError(
                f"there is no {listing} to name the classes: take it from {ARCHIVE.url}, or write "
                "a line of id, tab and name for each class"
            )
        words = {}
        for line in _text(listing).split("\n"):
            key, _, names = line.partition("\t")
            words[key.strip()] = _printable(names.partition(",")[0])
        if unnamed := [key for key in ids if not words.get(key)]:
            raise ValueError(
                f"{listing} has no name for {preview_names(unnamed)}: add a line of id, tab and "
                "name"
            )
        return _distinct([words[key] for key in ids], ids)

    def _validation(self, ids: Sequence[str]) -> LabelledFiles:
        folder = self.root / "val"
        if (folder / "images").is_dir():
            return self._annotated(folder, ids)
        test = files_by_class(folder, self._remedy(), _BOXES)
        if different := test.keys() ^ set(ids):
            raise ValueError(
                f"{folder} and {self.root / 'train'} do not hold the same classes: "
                f"{preview_names(different)}; unpack both again or remove what is only in one"
            )
        return label_files(test, ids)

    def _annotated(self, folder: Path, ids: Sequence[str]) -> LabelledFiles:
        listing = folder / "val_annotations.txt"
        if not listing.is_file():
            raise ValueError(
                f"there is no {listing} to label {folder / 'images'}: {self._remedy()}"
            )
        label_of = {key: label for label, key in enumerate(ids)}
        labels = []
        for number, line in enumerate(_text(listing).split("\n"), start=1):
            if not line.strip():
                continue
            # Columns: file name, WordNet id, bounding box.
            name, _, rest = line.partition("\t")
            key = rest.partition("\t")[0].strip()
            if key not in label_of:
                raise ValueError(
                    f"line {number} of {listing} gives {name!r} the class {key!r}, which is not "
                    f"in {self.root / 'train'}: unpack both again"
                )
            labels.append((name, label_of[key]))
        return match_listing(folder / "images", labels, listing)


def _text(file: Path) -> str:
    try:
        return read_regular_text(file, _MAX_LISTING_BYTES, errors="replace")
    except OSError as error:
        raise ValueError(
            f"{file} cannot be read ({error.strerror}): take it from {ARCHIVE.url}"
        ) from error


def _printable(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _distinct(names: Sequence[str], ids: Sequence[str]) -> tuple[str, ...]:
    count = Counter(names)
    unique = [
        name if count[name] == 1 else f"{name} ({key})"
        for name, key in zip(names, ids, strict=True)
    ]
    # A name may equal another name with its id appended.
    return tuple(unique if len(set(unique)) == len(ids) else ids)
