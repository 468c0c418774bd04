"""A data set of image files: read into memory, or streamed from disk."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cwx.data.image_files import Reader, Survey, check_same_size
from cwx.data.listed_files import ListedFiles
from cwx.data.manifest import Damage, Manifest, Record, survey
from cwx.data.splits import ImageSet, Source, Splits
from cwx.data.storage import Storage, total_memory
from cwx.data.stored_images import Folder, ImageContainer, ImageFile, LabelledFiles
from cwx.data.streamed_images import StreamedImages
from cwx.errors import printable

log = logging.getLogger(__name__)


@runtime_checkable
class FileSource(Protocol):
    """A data source whose images are files."""

    def listing(self) -> "FileSplits":
        """The files of both splits; only their names are read.

        Raises:
            ValueError: the files are missing or invalid; the message names the remedy.
        """


def load_splits(source: Source, storage: Storage) -> Splits:
    """Both splits of a source, where `storage` keeps them.

    Raises:
        ValueError: the source has no files to stream; and see `FileSplits.load`.
    """
    if not storage.needs_manifests:
        return source.load()
    if isinstance(source, FileSource):
        return source.listing().load(storage)
    raise ValueError(
        f"data.storage is {storage.kind} and data.on_error is {storage.on_error}, but the images "
        f"of {type(source).__name__} are no files that can be listed: set data.storage=memory and "
        "data.on_error=stop, or use data=image_folder"
    )


@dataclass(frozen=True)
class FileSplits:
    """The image files of a data set, each with its label.

    Attributes:
        root: the folder of all files, or what stands for it in messages.
        train, test: the files of the splits; there may be none for training.
        classes, synsets: see `cwx.data.splits.Splits`.
        reader: makes a reader of the images of one split.
        container: has the images, if they are parts of larger files.
    """

    root: Path
    train: LabelledFiles
    test: LabelledFiles
    classes: tuple[str, ...]
    synsets: tuple[str, ...] | None
    reader: Callable[[], Reader]
    container: ImageContainer | None = None

    def read(self) -> Splits:
        """Both splits in memory.

        Raises:
            ValueError: see `Reader.read`.
        """
        if not self.train:
            test = self.reader().read(self.test)
            return Splits(test.empty(), test, self.classes, self.synsets)
        train, test = (self.reader().read(files) for files in (self.train, self.test))
        return Splits(train, test, self.classes, self.synsets)

    def load(self, storage: Storage) -> Splits:
        """Both splits, where `storage` keeps them.

        Raises:
            ValueError: a file cannot be read, or images differ in size.
        """
        if not storage.needs_manifests:
            return self.read()
        on_disk = storage.kind == "disk" or (storage.kind == "auto" and self._exceeds(storage))
        if not on_disk and storage.on_error == "stop":
            return self.read()
        reader = self.reader()
        files = [*self.train, *self.test]
        paths = [file for file, _ in files]
        folder, container = Path(storage.manifests), self.container or Folder(self.root)
        manifest, damage = survey(paths, container, reader, folder, storage.processes)
        kept = _kept(paths, damage, storage)
        for name, first, count in (
            ("training", 0, len(self.train)),
            ("test", len(self.train), len(self.test)),
        ):
            if count and not any(first <= row < first + count for row in kept):
                raise ValueError(f"none of the {count} {name} images in {self.root} can be read")
        count = len(self.train)
        if on_disk:
            splits = self._streamed(_Listed(container, paths, manifest), kept, reader, storage)
        else:
            train = [files[row] for row in kept if row < count]
            test = [files[row] for row in kept if row >= count]
            splits = replace(self, train=train, test=test).read()
        test_files = torch.tensor([row - count for row in kept if row >= count])
        return replace(splits, test_files=test_files)

    def _streamed(
        self, listed: "_Listed", kept: Sequence[int], reader: Reader, storage: Storage
    ) -> Splits:
        sets = []
        for first, labelled in ((0, self.train), (len(self.train), self.test)):
            rows = torch.tensor(
                [row for row in kept if first <= row < first + len(labelled)], dtype=torch.int64
            )
            labels = torch.tensor([labelled[row - first][1] for row in rows.tolist()]).long()
            _check_records(listed, rows, reader)
            sets.append((rows, labels))
        (train, train_labels), (test, test_labels) = sets
        manifest = listed.manifest
        width, height = manifest.records[test[0], 2:4].tolist()
        shape = (len(reader.mode), height, width)
        files = ListedFiles(listed.container, listed.files, manifest, reader, shape, storage)
        images = StreamedImages(files, test)
        if not len(train):
            empty = ImageSet(torch.empty((0, *shape), dtype=torch.uint8), train_labels)
            return Splits(empty, ImageSet(images, test_labels), self.classes, self.synsets)
        if (manifest.records[train, 2:4] != manifest.records[test[0], 2:4]).any():
            first_train, first_test = (files.file(int(rows[0])) for rows in (train, test))
            size = manifest.records[train[0], 2:4].tolist()
            check_same_size(first_train, (size[0], size[1]), first_test, (width, height))
        training = ImageSet(StreamedImages(files, train), train_labels)
        return Splits(training, ImageSet(images, test_labels), self.classes, self.synsets)

    def _exceeds(self, storage: Storage) -> bool:
        """Whether the decoded images exceed the share of memory; a log line says it."""
        files = [*self.train, *self.test]
        size, total = len(files) * self._image_size(storage), total_memory()
        exceeds = size > storage.memory_share * total
        log.info(
            "data.storage=auto: %d decoded images take %.2f GB, %s than %g of %.1f GB of memory "
            "(data.memory_share): %s",
            len(files),
            size / 1e9,
            "more" if exceeds else "not more",
            storage.memory_share,
            total / 1e9,
            "they are decoded from disk when they are needed" if exceeds else "they are kept there",
        )
        return exceeds

    def _image_size(self, storage: Storage) -> int:
        """Bytes of the first decoded image; with ``on_error=skip``, of the first that can be read.

        Raises:
            ValueError: there is none.
        """
        reader = self.reader()
        error: ValueError | None = None
        for file, _ in (*self.train, *self.test):
            try:
                return int(reader.decode(file)[1].numel())
            except ValueError as failure:
                error = error or failure
                if storage.on_error == "stop":
                    break
        assert error is not None
        raise error


@dataclass(frozen=True)
class _Listed:
    """Files of a container, with their records."""

    container: ImageContainer
    files: Sequence[ImageFile]
    manifest: Manifest


def _kept(paths: Sequence[ImageFile], damage: dict[int, Damage], storage: Storage) -> list[int]:
    """The indices of the files that are read.

    Raises:
        ValueError: a file cannot be read, and is not to be skipped.
    """
    first = next(iter(damage.values()), None)
    refused = next((d for d in damage.values() if d.by_rule or storage.on_error == "stop"), None)
    if refused is not None:
        more = f" ({len(damage)} files cannot be read)" if len(damage) > 1 else ""
        rule = "" if refused.by_rule else "; data.on_error=skip leaves out what cannot be read"
        raise ValueError(f"{refused.message}{rule}{more}")
    if first is not None:
        line = "%d of %d image files cannot be read and are left out (data.on_error=skip): %s%s"
        more = ", …" if len(damage) > 3 else ""
        names = ", ".join(printable(paths[row]) for row in sorted(damage)[:3])
        log.warning(line, len(damage), len(paths), names, more)
    return [row for row in range(len(paths)) if row not in damage]


def _check_records(listed: "_Listed", rows: Tensor, reader: Reader) -> None:
    """The checks of images that are read into memory, on their records.

    Raises:
        ValueError: see `Reader.read`.
    """
    checked = Survey(reader.rules)
    records = listed.manifest.records[rows]

    def path(index: int) -> ImageFile:
        return listed.files[int(rows[index])]

    sizes = records[:, 2:4]
    if len(rows) and (different := (sizes != sizes[0]).any(1).nonzero()[:, 0]).numel():
        other = int(different[0])
        (first_width, first_height), (width, height) = sizes[0].tolist(), sizes[other].tolist()
        check_same_size(path(0), (first_width, first_height), path(other), (width, height))
    unusual = ((records[:, 4] > 8) | (records[:, 5] > 0)).nonzero()[:, 0].tolist()
    for index in unusual:
        record = Record(*records[index].tolist())
        checked.add(path(index), record.bits, bool(record.frames), record.brightest / 255)
    checked.check()
