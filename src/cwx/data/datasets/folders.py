"""Images in folders by class, and the user's own laid out so."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from cwx.data.image_files import Labelled, Reader, crop_to, image_files, is_grey
from cwx.data.splits import NOUN, Splits, synsets_by_index
from cwx.errors import closest

ByClass = Mapping[str, Sequence[Path]]


class ImageFolder:
    """The user's own images: ``<root>/train/<class>/*`` and ``<root>/test/<class>/*``.

    Class indices follow the sorted names of the training folders.

    Args:
        root: the folder that holds ``train`` and ``test``.
        size: side in pixels to which every image is resized and centre-cropped; ``None`` to
            take them as they are, all of one size.
        channels: 1 for grey, 3 for colour; ``None`` for grey if every image is grey.
        synsets: the WordNet 3.0 noun of each class by the folder's name; ``None`` for none.
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
        train, test = (by_class(self.root / split, remedy) for split in ("train", "test"))
        classes = class_order(train, self.root / "train")
        if unknown := test.keys() - train.keys():
            raise ValueError(
                f"{self.root / 'test'} has classes that train lacks: {some(unknown)}; "
                "remove them or add their training images"
            )
        # Before the images, which take a while.
        synsets = synsets_by_index(self.synsets, classes)
        reader = Reader(channels=self.channels or _common_channels([train, test]), fit=self.fit)
        return Splits(
            reader.read(labelled(train, classes)),
            reader.read(labelled(test, classes)),
            classes,
            synsets,
        )


class ClassFolders:
    """Test images alone, ``<root>/<class>/*``, for networks that are trained elsewhere.

    Args:
        root: the folder that holds one folder a class.
        classes: a text file with the names of all classes that the networks know, one a line, in
            the order of their outputs; the folder may hold images of some of them. ``None`` for
            the sorted names of the folders.
        size: side in pixels to which every image is centre-cropped; ``None`` to take them as they
            are, all of one size.
        resize: pixels to which the shorter side is resized before; ``None`` for `size`. Networks
            of torchvision take ``size: 224`` of ``resize: 256``.
        channels: 1 for grey, 3 for colour; ``None`` for grey if every image is grey.
        synsets: the WordNet 3.0 noun of each class by its name; ``None`` for the names themselves
            if all are ids of such nouns, and for none if not.
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
        test = by_class(self.root, "set data.source.root to a folder with <class>/ of images")
        if self.names is None:
            classes = class_order(test, self.root)
        else:
            classes = read_names(self.names)
            _check_known(test, classes, self.root, self.names)
        # Before the images, which take a while.
        synsets = self._synsets(classes)
        reader = Reader(channels=self.channels or _common_channels([test]), fit=self.fit)
        images = reader.read(labelled(test, classes))
        return Splits(images.none(), images, classes, synsets)

    def _synsets(self, classes: tuple[str, ...]) -> tuple[str, ...] | None:
        if self.synsets is None and all(NOUN.fullmatch(name) for name in classes):
            return classes
        return synsets_by_index(self.synsets, classes)


def read_names(file: Path) -> tuple[str, ...]:
    """The names in a text file, one a line; empty lines are skipped.

    Raises:
        ValueError: it cannot be read, names fewer than two, or one twice or unfit to be shown.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} cannot be read as text ({error}): set data.source.classes to a file with the "
            "name of a class a line, or to null"
        ) from error
    names = tuple(name for line in lines if (name := line.strip()))
    if len(names) < 2:
        raise ValueError(f"{file} names {len(names)} classes: a classifier needs two or more")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{file} names more than once: {some(twice)}; keep one line each")
    if odd := [name for name in names if not name.isprintable()]:
        raise ValueError(f"{file} has a name that cannot be shown, {odd[0]!a}: change it")
    return names


def _check_known(found: ByClass, classes: Sequence[str], folder: Path, names: Path) -> None:
    if unknown := sorted(found.keys() - set(classes)):
        near = closest(unknown[0], classes)
        raise ValueError(
            f"{folder} has folders that {names} does not name: {some(unknown)} (the nearest to "
            f"{unknown[0]} are {', '.join(near)}); rename or remove them, or name them there"
        )


def _check_channels(channels: int | None) -> None:
    if channels not in (None, 1, 3):
        raise ValueError(f"data.source.channels is {channels}: give 1, 3 or null")


def by_class(
    folder: Path, remedy: str, files: Callable[[Path], list[Path]] = image_files
) -> ByClass:
    """The image files of each subfolder, by its name.

    Args:
        remedy: what to do if there is no such folder.
        files: finds those of one subfolder.

    Raises:
        ValueError: there is no such folder, it has none inside, or one of them has no images or a
            name that cannot be shown.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: {remedy}")
    found = {path.name: path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."}
    if not found:
        raise ValueError(f"{folder} is empty: it needs a folder of images a class")
    if odd := [name for name in found if not name.isprintable()]:
        raise ValueError(f"{folder} has a folder whose name cannot be shown, {odd[0]!a}: rename it")
    images = {name: files(path) for name, path in found.items()}
    for name, paths in images.items():
        if not paths:
            raise ValueError(f"{found[name]} has no images: add some or remove the folder")
    return images


def class_order(train: ByClass, folder: Path) -> tuple[str, ...]:
    """The sorted names of the training folders.

    Raises:
        ValueError: there is only one.
    """
    classes = tuple(sorted(train))
    if len(classes) < 2:
        raise ValueError(
            f"{folder} has one class, {classes[0]!r}: a classifier needs two folders or more"
        )
    return classes


def labelled(images: ByClass, classes: Sequence[str]) -> Labelled:
    """The files class by class, each with the place of its class in `classes`."""
    return [(file, label) for label, name in enumerate(classes) for file in images.get(name, ())]


def listed(folder: Path, labels: Sequence[tuple[str, int]], listing: Path) -> Labelled:
    """The images of a folder in the order of a list, each with the label that it gives.

    The files are those that the folder holds: no name in the list leads out of it.

    Args:
        labels: file name and label, as read from `listing`.

    Raises:
        ValueError: the list and the folder do not hold the same names once each.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}, whose images {listing} lists")
    present = {file.name: file for file in image_files(folder)}
    names = [name for name, _ in labels]
    if missing := set(names) - present.keys():
        raise ValueError(f"{listing} lists what {folder} lacks: {some(missing)}; unpack it again")
    if unlisted := present.keys() - set(names):
        raise ValueError(
            f"{folder} has images without a label in {listing}: {some(unlisted)}; unpack both "
            "again or remove them"
        )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{listing} lists more than once: {some(repeated)}; keep one line each")
    return [(present[name], label) for name, label in labels]


def some(names: Iterable[str]) -> str:
    """The first three of the sorted names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more


def _common_channels(splits: Sequence[ByClass]) -> int:
    files = (file for split in splits for paths in split.values() for file in paths)
    return 1 if all(is_grey(file) for file in files) else 3
