"""Which files of a folder are images, and which are left out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from cwx.data.image_formats import FORMATS, SUFFIXES, image_format
from cwx.errors import printable

# In lower case. Desktops and tools leave these in any folder: nobody takes them for images.
_DESKTOP_FILES = frozenset(
    {
        *(".directory", ".ds_store", ".gitignore", ".gitkeep", ".keep", ".localized"),
        *("desktop.ini", "ehthumbs.db", "icon\r", "thumbs.db"),
    }
)
_DESKTOP_FOLDERS = frozenset(
    {"$recycle.bin", ".appledouble", ".git", ".ipynb_checkpoints", "@eadir", "__macosx"}
)


@dataclass(frozen=True)
class Listing:
    """The files of a folder and of its subfolders, sorted by path.

    Attributes:
        folder: the folder.
        images: files that are read.
        left_out: all others, except the files of desktops, such as ``Thumbs.db``.
    """

    folder: Path
    images: Sequence[Path]
    left_out: Sequence[Path]

    def lost(self) -> list[Path]:
        """The left-out files without those that accompany an image, such as ``0.txt`` of ``0.png``.

        They may be images that somebody expects to be read.
        """
        stems = {(image.parent, image.stem) for image in self.images}
        return [file for file in self.left_out if not _stems(file) & stems]

    def check(self) -> None:
        """Refuse a folder that has no images, or loses more files than it keeps.

        Raises:
            ValueError: see above; lists what is left out.
        """
        lost = self.lost()
        if self.images and len(lost) <= len(self.images):
            return
        if not self.images and not lost:
            raise ValueError(f"{self.folder} has no images: add some or remove the folder")
        images = f"only {len(self.images)} images" if self.images else "no image"
        raise ValueError(
            f"{self.folder} has {images} of the formats that are read ({', '.join(FORMATS)}), "
            f"and {summarise(lost, self.folder)}: convert them, or remove them or the folder"
        )


def list_images(folder: Path, expected: Sequence[str] = ()) -> Listing:
    """The image files of a folder and of all its subfolders.

    A file is an image by its content, or should be one by its suffix. Hidden files are left out.

    Args:
        expected: patterns of other files that are neither images nor worth a line.

    Raises:
        ValueError: a file or a folder may not be read.
    """
    images: list[Path] = []
    left_out: list[Path] = []
    for file in sorted(_files(folder)):
        if any(fnmatch(file.name, pattern) for pattern in expected):
            continue
        is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        (images if not is_hidden and is_image(file) else left_out).append(file)
    return Listing(folder, images, left_out)


def summarise(files: Sequence[Path], folder: Path) -> str:
    """The number of files by suffix, with the first three paths within `folder`.

    >>> summarise([Path("a/0.avif"), Path("a/1.avif"), Path("a/notes")], Path("a"))
    '3 other files (2 .avif, 1 without a suffix: 0.avif, 1.avif, notes)'
    """
    counts = Counter(file.suffix.lower() or "without a suffix" for file in files)
    kinds = ", ".join(f"{count} {printable(suffix)}" for suffix, count in counts.most_common(5))
    names = ", ".join(printable(file.relative_to(folder)) for file in files[:3])
    more = ", …" if len(files) > 3 else ""
    return f"{len(files)} other file{'s' * (len(files) != 1)} ({kinds}: {names}{more})"


def is_desktop_file(path: Path) -> bool:
    """Whether desktops and tools create a file or folder of this name in any folder."""
    name = path.name.lower()
    # macOS keeps the attributes of 0.png in ._0.png.
    return name in _DESKTOP_FILES or name in _DESKTOP_FOLDERS or name.startswith("._")


def is_image(file: Path) -> bool:
    """Whether a file is an image by its content, or should be one by its suffix.

    Raises:
        ValueError: the file may not be read.
    """
    if file.suffix.lower() in SUFFIXES:
        # If it is none, its reader says what it is.
        return True
    try:
        return image_format(file) is not None
    except PermissionError as error:
        raise ValueError(
            f"{printable(file)} cannot be read ({error.strerror}): allow it, or remove the file"
        ) from error
    except OSError:
        # A broken link, a named pipe or the like.
        return False


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder; each folder is visited once, whatever links lead to it."""
    folders, visited = [folder], set()
    while folders:
        current = folders.pop()
        status = current.stat()
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        for path in _entries(current):
            if path.is_dir() and not is_desktop_file(path):
                folders.append(path)
            elif not is_desktop_file(path):
                yield path


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ValueError(
            f"the folder {printable(folder)} cannot be read ({error.strerror}): allow reading it, "
            "or remove it"
        ) from error


def _stems(file: Path) -> set[tuple[Path, str]]:
    """The images that a file may accompany: ``0.txt`` and ``0.png.txt`` belong to ``0.png``."""
    return {(file.parent, file.stem), (file.parent, Path(file.stem).stem)}
