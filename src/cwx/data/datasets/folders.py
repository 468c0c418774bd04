"""Images in one folder per class, and data sources of the user's own images."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from cwx.data.image_files import LabelledFiles, Reader, crop_to, image_files, is_grey
from cwx.data.splits import NOUN, Splits, synsets_by_index
from cwx.errors import closest

FilesByClass = Mapping[str, Sequence[Path]]


class ImageFolder:
    """The user's own images: ``<root>/train/<class>/*`` and ``<root>/test/<class>/*``.

    Class indices follow the sorted names of the training folders.

    Args:
        root: the folder that holds ``train`` and ``test``.
        size: side in pixels: every image is resized and centre-cropped to a square; ``None`` to
            keep images of one common size.
        channels: 1 for grey, 3 for colour; ``None`` for grey if all images are grey, else colour.
        synsets: the WordNet 3.0 noun id of each class, by folder name; ``None`` for none.
    """

    def __init__(
        self,
        *,
        root: str,
        size: int | None,
        channels: int | None,
        synsets: Mapping[str, str] | None,
    ) -> None:
        _check_channels(channels)
        self.root, self.channels, self.synsets = Path(root), channels, synsets
        self.fit = None if size is None else crop_to(size)

    def prepare(self) -> None:
        return

    def load(self) -> Splits:
        remedy = "set data.source.root to a folder with train/<class>/ and test/<class>/"
        train, test = (files_by_class(self.root / split, remedy) for split in ("train", "test"))
        classes = class_order(train, self.root / "train")
        if unknown := test.keys() - train.keys():
            raise ValueError(
                f"{self.root / 'test'} has classes that train lacks: {preview_names(unknown)}; "
                "remove them or add their training images"
            )
        # Check the synsets first: reading the images takes longer.
        synsets = synsets_by_index(self.synsets, classes)
        reader = Reader(channels=self.channels or _common_channels([train, test]), fit=self.fit)
        return Splits(
            reader.read(label_files(train, classes)),
            reader.read(label_files(test, classes)),
            classes,
            synsets,
        )


class ClassFolders:
    """Test images only, ``<root>/<class>/*``, for networks that were trained elsewhere.

    Args:
        root: the folder with one folder per class.
        classes: a text file with the names of all classes of the networks, one per line, in the
            order of their outputs; `root` may have images of some of them only. ``None`` for the
            sorted names of the folders.
        size: side in pixels of the central crop; ``None`` to keep images of one common size.
        resize: pixels to which the shorter side is resized before cropping; ``None`` for `size`.
            Networks of torchvision use ``size: 224`` and ``resize: 256``.
        channels: 1 for grey, 3 for colour; ``None`` for grey if all images are grey, else colour.
        synsets: the WordNet 3.0 noun id of each class, by class name; ``None`` to use the names
            if all are such ids, and no synsets otherwise.
    """

    def __init__(
        self,
        *,
        root: str,
        classes: str | None,
        size: int | None,
        resize: int | None,
        channels: int | None,
        synsets: Mapping[str, str] | None,
    ) -> None:
        _check_channels(channels)
        self.root, self.channels, self.synsets = Path(root), channels, synsets
        self.names = None if classes is None else Path(classes)
        if size is None and resize is not None:
            raise ValueError(f"data.source.resize is {resize} without data.source.size: give both")
        self.fit = None if size is None else crop_to(size, resize)

    def prepare(self) -> None:
        return

    def load(self) -> Splits:
        test = files_by_class(self.root, "set data.source.root to a folder with <class>/ of images")
        if self.names is None:
            classes = class_order(test, self.root)
        else:
            classes = read_names(self.names)
            _check_known(test, classes, self.root, self.names)
        # Check the synsets first: reading the images takes longer.
        synsets = self._synsets(classes)
        reader = Reader(channels=self.channels or _common_channels([test]), fit=self.fit)
        images = reader.read(label_files(test, classes))
        return Splits(images.empty(), images, classes, synsets)

    def _synsets(self, classes: tuple[str, ...]) -> tuple[str, ...] | None:
        if self.synsets is None and all(NOUN.fullmatch(name) for name in classes):
            return classes
        return synsets_by_index(self.synsets, classes)


def read_names(file: Path) -> tuple[str, ...]:
    """The class names in a text file, one per line; empty lines are skipped.

    Raises:
        ValueError: the file cannot be read, or has fewer than two names, a duplicate, or a name
            with unprintable characters.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} cannot be read as text ({error}): set data.source.classes to a file with the "
            "name of one class per line, or to null"
        ) from error
    names = tuple(name for line in lines if (name := line.strip()))
    if len(names) < 2:
        raise ValueError(f"{file} names {len(names)} classes: a classifier needs two or more")
    if duplicates := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"{file} names more than once: {preview_names(duplicates)}; keep one line each"
        )
    if unprintable := [name for name in names if not name.isprintable()]:
        raise ValueError(
            f"{file} has a name with unprintable characters, {unprintable[0]!a}: change it"
        )
    return names


def _check_known(files: FilesByClass, classes: Sequence[str], folder: Path, names: Path) -> None:
    if unknown := sorted(files.keys() - set(classes)):
        near = closest(unknown[0], classes)
        raise ValueError(
            f"{folder} has folders that {names} does not name: {preview_names(unknown)} (the "
            f"nearest to {unknown[0]} are {', '.join(near)}); rename or remove them, or "
            "name them there"
        )


def _check_channels(channels: int | None) -> None:
    if channels not in (None, 1, 3):
        raise ValueError(f"data.source.channels is {channels}: give 1, 3 or null")


def files_by_class(
    folder: Path, remedy: str, files: Callable[[Path], list[Path]] = image_files
) -> FilesByClass:
    """The image files of each subfolder, by the subfolder's name.

    Args:
        remedy: for the error message if `folder` does not exist.
        files: lists the image files of a subfolder.

    Raises:
        ValueError: `folder` does not exist or has no subfolders, or a subfolder has no images or
            a name with unprintable characters.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: {remedy}")
    subfolders = {
        path.name: path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."
    }
    if not subfolders:
        raise ValueError(f"{folder} is empty: it needs one folder of images per class")
    if unprintable := [name for name in subfolders if not name.isprintable()]:
        raise ValueError(
            f"{folder} has a folder name with unprintable characters, {unprintable[0]!a}: rename it"
        )
    images = {name: files(path) for name, path in subfolders.items()}
    for name, paths in images.items():
        if not paths:
            raise ValueError(f"{subfolders[name]} has no images: add some or remove the folder")
    return images


def class_order(train: FilesByClass, folder: Path) -> tuple[str, ...]:
    """The sorted names of the training folders.

    Raises:
        ValueError: there is only one class.
    """
    classes = tuple(sorted(train))
    if len(classes) < 2:
        raise ValueError(
            f"{folder} has one class, {classes[0]!r}: a classifier needs two folders or more"
        )
    return classes


def label_files(images: FilesByClass, classes: Sequence[str]) -> LabelledFiles:
    """The files class by class, each with the index of its class in `classes`."""
    return [(file, label) for label, name in enumerate(classes) for file in images.get(name, ())]


def match_listing(folder: Path, labels: Sequence[tuple[str, int]], listing: Path) -> LabelledFiles:
    """The images of `folder` in the order of a list, each with its label from the list.

    Only files in `folder` are returned: no name in the list can lead out of it.

    Args:
        labels: file names and labels, as read from `listing`.
        listing: the file with the list, for error messages.

    Raises:
        ValueError: the list and the folder do not have the same names, each exactly once.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}, whose images {listing} lists")
    present = {file.name: file for file in image_files(folder)}
    names = [name for name, _ in labels]
    if missing := set(names) - present.keys():
        raise ValueError(
            f"{listing} lists files that {folder} lacks: {preview_names(missing)}; unpack it again"
        )
    if unlisted := present.keys() - set(names):
        raise ValueError(
            f"{folder} has images without a label in {listing}: {preview_names(unlisted)}; unpack "
            "both again or remove them"
        )
    if duplicates := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"{listing} lists more than once: {preview_names(duplicates)}; keep one line each"
        )
    return [(present[name], label) for name, label in labels]


def preview_names(names: Iterable[str]) -> str:
    """The first three of the sorted names, and the number of the others.

    >>> preview_names(["d", "b", "a", "c", "e"])
    'a, b, c and 2 more'
    """
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more


def _common_channels(splits: Sequence[FilesByClass]) -> int:
    files = (file for split in splits for paths in split.values() for file in paths)
    return 1 if all(is_grey(file) for file in files) else 3
