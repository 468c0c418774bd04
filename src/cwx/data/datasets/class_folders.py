"""Image files in one folder per class, or in one folder with a list of labels."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cwx.data.class_order import in_order
from cwx.data.image_listing import Listing, is_desktop_file, is_image, list_images, summarise
from cwx.data.stored_images import LabelledFiles
from cwx.errors import printable
from cwx.functional.class_names import composed

log = logging.getLogger(__name__)

FilesByClass = Mapping[str, Sequence[Path]]


# Published samples of ImageNet lie in one folder: n01440764_tench.jpg, n01440764_18.JPEG.
_SYNSET_FILE = re.compile(r"(n\d{8})_.+")


def files_by_class(folder: Path, remedy: str, expected: Sequence[str] = ()) -> FilesByClass:
    """The image files of each subfolder and of all folders in it, by the subfolder's name.

    In a folder without subfolders, whose images all have names such as ``n01440764_tench.jpg``, the
    class is the WordNet id in front.

    A log line counts and names the files that are left out. Names are in Unicode's composed form
    (NFC): file systems write an é in one character or in two.

    Args:
        remedy: for the error message if `folder` does not exist.
        expected: patterns of other files of the data set, such as ``*.csv``, which are not named.

    Raises:
        ValueError: `folder` does not exist or has no subfolders, or a subfolder has no images,
            loses most of its files, or has the name of another or one with unprintable characters.
    """
    if by_synset := _files_by_synset(folder):
        return by_synset
    subfolders, loose = _subfolders(folder, remedy)
    listings = {name: list_images(path, expected) for name, path in subfolders.items()}
    for listing in listings.values():
        listing.check()
    _log_left_out(folder, list(listings.values()), loose)
    return {name: listing.images for name, listing in listings.items()}


def _files_by_synset(folder: Path) -> FilesByClass:
    """The images by the WordNet id at the start of their names; empty if a name has none."""
    if not folder.is_dir():
        return {}
    entries = [path for path in sorted(folder.iterdir()) if not is_desktop_file(path)]
    matches = [(path, _SYNSET_FILE.fullmatch(path.name)) for path in entries]
    if not entries or not all(match and path.is_file() for path, match in matches):
        return {}
    by_synset: dict[str, list[Path]] = {}
    for path, match in matches:
        if match and is_image(path):
            by_synset.setdefault(match[1], []).append(path)
    return by_synset


def _subfolders(folder: Path, remedy: str) -> tuple[dict[str, Path], list[Path]]:
    """The folders of classes by name, and all other files in `folder`."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: {remedy}")
    entries = [path for path in sorted(folder.iterdir()) if not is_desktop_file(path)]
    paths = [path for path in entries if path.is_dir() and path.name[0] != "."]
    if not paths:
        raise ValueError(f"{folder} is empty: it needs one folder of images per class")
    subfolders: dict[str, Path] = {}
    for path in paths:
        if not path.name.isprintable():
            raise ValueError(
                f"{folder} has a folder name with unprintable characters, {path.name!a}: rename it"
            )
        name = composed(path.name)
        if name in subfolders:
            raise ValueError(
                f"{folder} has two folders of the name {name}, {subfolders[name].name!a} and "
                f"{path.name!a}, which differ only in how Unicode writes it: merge them"
            )
        subfolders[name] = path
    return subfolders, [path for path in entries if path not in paths]


def _log_left_out(folder: Path, listings: Sequence[Listing], loose: Sequence[Path]) -> None:
    """Name the files that are left out.

    Raises:
        ValueError: most images lie in no folder of a class.
    """
    images = [image for listing in listings for image in listing.images]
    unlabelled = [path for path in loose if not path.is_dir() and is_image(path)]
    if len(unlabelled) > len(images):
        raise ValueError(
            f"{folder} has {len(images)} images in folders of classes and {len(unlabelled)} in no "
            f"such folder, such as {printable(unlabelled[0].name)}: move them to their classes"
        )
    left_out = [*loose, *(file for listing in listings for file in listing.left_out)]
    if left_out:
        count, others = len(images), summarise(left_out, folder)
        log.warning("%s: %d images are read, and %s are left out", folder, count, others)
    nested = [
        image for listing in listings for image in listing.images if image.parent != listing.folder
    ]
    if nested:
        example = printable(nested[0].parent.relative_to(folder))
        line = "%s: %d of the images lie in folders within those of the classes, such as %s"
        log.info(line, folder, len(nested), example)


def class_order(train: FilesByClass, folder: Path) -> tuple[str, ...]:
    """The names of the training folders, in the order of `in_order`.

    Raises:
        ValueError: there is only one class.
    """
    classes = in_order(tuple(train))
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
        ValueError: the list and the folder do not have the same images, each exactly once.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}, whose images {listing} lists")
    present = {path.name: path for path in sorted(folder.iterdir())}
    names = [name for name, _ in labels]
    if missing := set(names) - present.keys():
        raise ValueError(
            f"{listing} lists files that {folder} lacks: {preview_names(missing)}; unpack it again"
        )
    others = [present[name] for name in present.keys() - set(names)]
    if unlisted := [path.name for path in others if not is_desktop_file(path) and is_image(path)]:
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
    return ", ".join(map(printable, ordered[:3])) + more
