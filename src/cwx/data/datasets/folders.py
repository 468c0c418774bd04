"""Data sources of the user's own images, in one folder per class."""

import copy
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

import torch
from torch import Tensor

from cwx.data.datasets.channels import check_channels, common_channels
from cwx.data.datasets.class_folders import (
    FilesByClass,
    class_order,
    files_by_class,
    label_files,
    preview_names,
)
from cwx.data.file_splits import FileSplits
from cwx.data.image_files import Reader
from cwx.data.image_listing import is_desktop_file
from cwx.data.pixel_conversion import PixelRules
from cwx.data.resizing import crop_if_sized, crop_to
from cwx.data.splits import ImageSet, Splits, synsets_by_index
from cwx.data.stored_images import LabelledFiles
from cwx.errors import closest, did_you_mean
from cwx.functional.class_names import ClassName, composed
from cwx.functional.spacing import evenly_spaced
from cwx.storage.regular_files import read_regular_text

log = logging.getLogger(__name__)

# A name in each of a million lines.
_MAX_NAMES_BYTES = 2**26
# The names of the settings of `PixelRules`, for messages.
_SETTING = "data.source."


class ImageFolder:
    """The user's own images: ``<root>/train/<class>/*`` and ``<root>/test/<class>/*``.

    The test images may be in ``val`` instead, as those of ImageNet. Class indices follow the names
    of the training folders: sorted, or by number if all are numbers
    (`cwx.data.class_order.in_order`).

    Args:
        root: the folder that holds ``train`` and ``test``, or ``train`` and ``val``.
        size, resize, interpolation: as in `ClassFolders`.
        background: the colour behind transparent pixels; ``None`` to refuse them.
        white_level: the value of white in files of more than 8 bits; ``None`` for the largest of
            16 bits, and 1 in floats.
        channels: 1 for grey, 3 for colour; ``None`` for grey if all images are stored in grey, else
            colour.
        synsets: the WordNet 3.0 noun id of each class, by folder name; ``None`` to use the names
            if all are such ids, and no synsets otherwise.
    """

    def __init__(
        self,
        *,
        root: str,
        size: Annotated[int, ">= 1, <= 4096"] | None,
        resize: Annotated[int, ">= 1, <= 4096"] | None,
        interpolation: str | None,
        channels: Annotated[int, ">= 1, <= 3"] | None,
        background: str | None,
        white_level: Annotated[float, "> 0, <= 4294967295"] | None,
        synsets: Mapping[ClassName, str] | None,
    ) -> None:
        check_channels(channels)
        self.root, self.channels, self.synsets = Path(root), channels, synsets
        self.interpolation = interpolation
        self.rules = PixelRules(background, white_level, _SETTING)
        self.fit = crop_if_sized(size, resize, interpolation)

    def prepare(self) -> None:
        return

    def load(self) -> Splits:
        return self.listing().read()

    def listing(self) -> FileSplits:
        """The files of both splits, in the order of `load`."""
        remedy = "set data.source.root to a folder with train/<class>/ and test/<class>/"
        tested = self.root / ("val" if _has_val_only(self.root) else "test")
        train, test = (files_by_class(path, remedy) for path in (self.root / "train", tested))
        classes = class_order(train, self.root / "train")
        _check_test(test, train, tested)
        # Check the synsets first: reading the images takes longer.
        synsets = synsets_by_index(self.synsets, classes)
        self._channels = self.channels or common_channels([train, test])
        self._test = label_files(test, classes)
        labelled = label_files(train, classes)
        return FileSplits(self.root, labelled, self._test, classes, synsets, self._reader)

    def with_size(self, size: int, resize: int | None) -> Self:
        """The same source, loaded, with another `size` and `resize`."""
        source = copy.copy(self)
        source.fit = crop_to(size, resize, interpolation=self.interpolation)
        return source

    def test_images(self, numbers: Tensor) -> ImageSet:
        """The images of these test files, in this order, of a loaded source."""
        return self._reader().read([self._test[int(number)] for number in numbers])

    def _reader(self) -> Reader:
        return Reader(channels=self._channels, fit=self.fit, rules=self.rules)


class ClassFolders:
    """Test images only, ``<root>/<class>/*``, for networks that were trained elsewhere.

    Args:
        root: the folder with one folder per class.
        classes: the names of all classes of the networks, in the order of their outputs: a list,
            or a text file with one per line; `root` may have images of some of them only. ``None``
            for the names of the folders: sorted, or by number if all are numbers.
        size: side in pixels of the central crop; ``None`` to keep images of one common size.
        resize: pixels to which the shorter side is resized before cropping; ``None`` for `size`.
            Networks of torchvision use ``size: 224`` and ``resize: 256``.
        interpolation: the filter that resizes images, a name of
            `cwx.data.resizing.INTERPOLATIONS`; ``None`` for that of most published weights.
        background: the colour behind transparent pixels; ``None`` to refuse them.
        white_level: the value of white in files of more than 8 bits; ``None`` for the largest of
            16 bits, and 1 in floats.
        channels: 1 for grey, 3 for colour; ``None`` for grey if all images are stored in grey, else
            colour.
        images: read at most so many images, evenly spaced; ``None`` for all.
        synsets: the WordNet 3.0 noun id of each class, by class name; ``None`` to use the names
            if all are such ids, and no synsets otherwise.
    """

    def __init__(
        self,
        *,
        root: str,
        classes: str | Annotated[Sequence[ClassName], "not empty, distinct"] | None,
        size: Annotated[int, ">= 1, <= 4096"] | None,
        resize: Annotated[int, ">= 1, <= 4096"] | None,
        interpolation: str | None,
        channels: Annotated[int, ">= 1, <= 3"] | None,
        background: str | None,
        white_level: Annotated[float, "> 0, <= 4294967295"] | None,
        images: Annotated[int, ">= 1"] | None,
        synsets: Mapping[ClassName, str] | None,
    ) -> None:
        check_channels(channels)
        self.root, self.channels, self.synsets = Path(root), channels, synsets
        self.interpolation, self.images = interpolation, images
        self.rules = PixelRules(background, white_level, _SETTING)
        self.names = Path(classes) if isinstance(classes, str) else classes
        self.fit = crop_if_sized(size, resize, interpolation)

    def prepare(self) -> None:
        return

    def load(self) -> Splits:
        return self.listing().read()

    def listing(self) -> FileSplits:
        """The test files, in the order of `load`."""
        test, classes = self.files()
        # Check the synsets first: reading the images takes longer.
        synsets = synsets_by_index(self.synsets, classes)
        files = self._labelled(test, classes)
        return FileSplits(self.root, [], files, classes, synsets, lambda: self._reader(test))

    def with_size(self, size: int, resize: int | None) -> Self:
        """The same source with another `size` and `resize`."""
        source = copy.copy(self)
        source.fit = crop_to(size, resize, interpolation=self.interpolation)
        return source

    def test_images(self, numbers: Tensor) -> ImageSet:
        """The images of these test files, in this order."""
        test, classes = self.files()
        files = self._labelled(test, classes)
        return self._reader(test).read([files[int(number)] for number in numbers])

    def _labelled(self, test: FilesByClass, classes: Sequence[str]) -> LabelledFiles:
        files = label_files(test, classes)
        if self.images is None or self.images >= len(files):
            return files
        indices = evenly_spaced(len(files), self.images, device=torch.device("cpu"))
        return [files[int(index)] for index in indices]

    def read(self, files: LabelledFiles) -> ImageSet:
        """These files of the folder, in their order; `channels` must not be ``None``."""
        assert self.channels is not None
        return self._reader({}).read(files)

    def files(self) -> tuple[FilesByClass, tuple[str, ...]]:
        """The files by class, and all classes in order."""
        test = files_by_class(self.root, "set data.source.root to a folder with <class>/ of images")
        if self.names is None:
            return test, class_order(test, self.root)
        if isinstance(self.names, Path):
            classes, source = read_names(self.names), str(self.names)
        else:
            source = "data.source.classes"
            classes = checked_names([str(name) for name in self.names], source)
        _check_known(test, classes, self.root, source)
        return test, classes

    def _reader(self, test: FilesByClass) -> Reader:
        channels = self.channels or common_channels([test])
        return Reader(channels=channels, fit=self.fit, rules=self.rules)


def read_names(file: Path) -> tuple[str, ...]:
    """The class names in a text file, one per line; empty lines are skipped.

    Raises:
        ValueError: the file cannot be read, or has fewer than two names, a duplicate, or a name
            with unprintable characters.
    """
    try:
        text = read_regular_text(file, _MAX_NAMES_BYTES, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} cannot be read as text ({error}): set data.source.classes to a file with the "
            "name of one class per line, or to null"
        ) from error
    return checked_names(text.splitlines(), str(file))


def checked_names(lines: Sequence[str], source: str) -> tuple[str, ...]:
    """The class names in lines of text; empty lines are skipped.

    Args:
        source: a file or a setting, for messages.

    Raises:
        ValueError: see `read_names`.
    """
    names = tuple(name for line in lines if (name := composed(line.strip())))
    if len(names) < 2:
        raise ValueError(f"{source} names {len(names)} classes: a classifier needs two or more")
    if duplicates := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"{source} names more than once: {preview_names(duplicates)}; keep one line each"
        )
    if unprintable := [name for name in names if not name.isprintable()]:
        raise ValueError(
            f"{source} has a name with unprintable characters, {unprintable[0]!a}: change it"
        )
    return names


def _has_val_only(root: Path) -> bool:
    return (root / "val").is_dir() and not (root / "test").exists()


def _check_test(test: FilesByClass, train: FilesByClass, folder: Path) -> None:
    """Refuse test classes that train lacks, and name what is not read."""
    root = folder.parent
    if unknown := sorted(test.keys() - train.keys()):
        other_case = [name for name in train if name.casefold() == unknown[0].casefold()]
        remedy = did_you_mean(
            unknown[0],
            other_case or train,
            "remove them or add their training images",
            prefix=f"{root / 'train'}/",
            cutoff=0.0 if other_case else 0.6,
        )
        raise ValueError(
            f"{folder} has classes that train lacks: {preview_names(unknown)}; {remedy}"
        )
    if untested := train.keys() - test.keys():
        log.warning("%s lacks classes: %s", folder, preview_names(untested))
    others = [
        path.name
        for path in root.iterdir()
        if path.is_dir() and path.name not in ("train", folder.name) and not is_desktop_file(path)
    ]
    if others:
        log.warning("%s has folders that are not read: %s", root, preview_names(others))


def _check_known(files: FilesByClass, classes: Sequence[str], folder: Path, names: str) -> None:
    if unknown := sorted(files.keys() - set(classes)):
        near = closest(unknown[0], classes)
        raise ValueError(
            f"{folder} has folders that {names} does not name: {preview_names(unknown)} (the "
            f"nearest to {unknown[0]} are {', '.join(near)}); rename or remove them, or "
            "name them there"
        )
