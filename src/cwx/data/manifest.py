"""The manifest of image files: each is read once, and known by its content from then on."""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

from cwx.data.image_files import Reader
from cwx.data.pixel_conversion import PixelError
from cwx.data.stored_images import ImageContainer, ImageFile, image_digest, image_status
from cwx.data.worker_loader import WorkerLoader
from cwx.errors import printable
from cwx.storage.atomic import remove_temporary_of, write_tensors
from cwx.storage.locks import acquire
from cwx.storage.regular_files import check_regular

log = logging.getLogger(__name__)

# Files that a worker reads at a time.
_CHUNK = 64
# Bytes of a SHA-256.
_DIGEST = 32


class Record(NamedTuple):
    """What is known of a readable image file.

    Attributes:
        size: in bytes.
        mtime: the time of its last change, in nanoseconds; of a part of a larger file, its stamp
            (`cwx.data.stored_images.StoredImage.status`).
        width, height: of the decoded image.
        bits: of a sample in the file.
        frames: 1 if the file has further frames or pages, else 0.
        brightest: the largest value of a pixel, in 0-255.
    """

    size: int
    mtime: int
    width: int
    height: int
    bits: int
    frames: int
    brightest: int


class Damage(NamedTuple):
    """Why a file is not read.

    Attributes:
        message: names the file and the remedy.
        by_rule: the file is whole, but a setting must say what its pixels mean.
    """

    message: str
    by_rule: bool


@dataclass(frozen=True)
class Manifest:
    """The records of files, in their order.

    Attributes:
        names: of the files in their container: in a folder, their paths within it, as the file
            system encodes them.
        records: ``[n, 7]`` as int64, see `Record`.
        digests: of the content of each file, bytes ``[n, 32]``.
    """

    names: Sequence[bytes]
    records: Tensor
    digests: Tensor

    def rows(self) -> dict[bytes, int]:
        return {name: row for row, name in enumerate(self.names)}


def survey(
    files: Sequence[ImageFile],
    container: ImageContainer,
    reader: Reader,
    cache: Path,
    workers: int,
) -> tuple[Manifest, dict[int, Damage]]:
    """The manifest of `files`, of which those that are new or changed are decoded once.

    Args:
        files: in `container`.
        reader: decodes them.
        cache: the folder of the manifests of earlier calls.
        workers: processes that decode.

    Returns:
        the manifest, and the damage of files that cannot be read, by their index: their records
        are 0.
    """
    root = container.root
    settings = hashlib.sha256(repr((str(root.absolute()), reader.settings())).encode())
    file = cache / f"{settings.hexdigest()[:20]}.safetensors"
    cache.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file.with_suffix(".lock"))
    acquire(lock, f"another process reads the image files of {printable(root)}: waiting for it")
    try:
        remove_temporary_of(file)
        return _survey(files, container, reader, file, workers)
    finally:
        lock.release()


def _survey(
    files: Sequence[ImageFile],
    container: ImageContainer,
    reader: Reader,
    file: Path,
    workers: int,
) -> tuple[Manifest, dict[int, Damage]]:
    root, names = container.root, [container.name(image) for image in files]
    records = torch.zeros(len(files), len(Record._fields), dtype=torch.int64)
    digests = torch.zeros(len(files), _DIGEST, dtype=torch.uint8)
    earlier = _read(file)
    known = {} if earlier is None else earlier.rows()
    unknown = []
    for row, (name, path) in enumerate(zip(names, files, strict=True)):
        place = known.get(name)
        if earlier is not None and place is not None and _is_unchanged(path, earlier, place):
            records[row], digests[row] = earlier.records[place], earlier.digests[place]
        else:
            unknown.append(row)
    damage: dict[int, Damage] = {}
    if unknown:
        line = "%s: %d of %d image files are new or changed, and are read once to check them"
        log.info(line, printable(root), len(unknown), len(files))
    for row, outcome in _check([(row, files[row]) for row in unknown], reader, workers):
        if isinstance(outcome, Damage):
            damage[row] = outcome
        else:
            records[row] = torch.tensor(outcome[0])
            digests[row] = torch.frombuffer(bytearray(outcome[1]), dtype=torch.uint8)
    manifest = Manifest(names, records, digests)
    if earlier is not None:
        _name_changed(manifest, earlier, [row for row in unknown if row not in damage], root)
    if unknown:
        _write(file, manifest, earlier, damage)
    return manifest, damage


def _is_unchanged(path: ImageFile, manifest: Manifest, row: int) -> bool:
    try:
        return list(image_status(path)) == manifest.records[row, :2].tolist()
    except OSError:
        return False


def _name_changed(manifest: Manifest, earlier: Manifest, rows: Sequence[int], root: Path) -> None:
    known = earlier.rows()
    changed = [
        manifest.names[row]
        for row in rows
        if (place := known.get(manifest.names[row])) is not None
        and not torch.equal(manifest.digests[row], earlier.digests[place])
    ]
    if changed:
        log.warning(
            "%s: %d image files have another content than when they were last read, such as %s",
            printable(root),
            len(changed),
            printable(os.fsdecode(changed[0])),
        )


Outcome = tuple[Record, bytes] | Damage


def _check(
    files: Sequence[tuple[int, ImageFile]], reader: Reader, workers: int
) -> Iterator[tuple[int, Outcome]]:
    chunks = [
        range(start, min(start + _CHUNK, len(files))) for start in range(0, len(files), _CHUNK)
    ]
    dataset = _Outcomes(files, reader)
    for part in WorkerLoader(dataset, chunks, workers=workers if len(chunks) > 1 else 0):
        yield from part


class _Outcomes(Dataset[list[tuple[int, Outcome]]]):
    def __init__(self, files: Sequence[tuple[int, ImageFile]], reader: Reader) -> None:
        self.files, self.reader = files, reader

    def __getitem__(self, chunk: range) -> list[tuple[int, Outcome]]:
        return [(self.files[i][0], _outcome(self.files[i][1], self.reader)) for i in chunk]


def _outcome(file: ImageFile, reader: Reader) -> Outcome:
    try:
        status, digest = image_status(file), image_digest(file)
        decoded, pixels = reader.decode(file)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return Damage(f"{printable(file)} cannot be read ({reason}): replace or remove it", False)
    except ValueError as error:
        return Damage(str(error), isinstance(error.__cause__, PixelError))
    record = Record(
        *status,
        *decoded.image.size,
        decoded.bits,
        int(decoded.has_frames),
        round(255 * reader.brightest(pixels)),
    )
    return record, digest


def _read(file: Path) -> Manifest | None:
    """An earlier manifest; ``None`` if there is none, or it is damaged."""
    try:
        check_regular(file)
        tensors = load_file(file)
        names = bytes(tensors["names"].numpy()).split(b"\0")
        manifest = Manifest(names, tensors["records"], tensors["digests"])
    except (OSError, KeyError, SafetensorError):
        return None
    expected = (len(names), len(Record._fields)), (len(names), _DIGEST)
    actual = tuple(manifest.records.shape), tuple(manifest.digests.shape)
    return manifest if actual == expected else None


def _write(
    file: Path, manifest: Manifest, earlier: Manifest | None, damage: dict[int, Damage]
) -> None:
    """Write the readable files, with those of an earlier manifest that were not asked for."""
    readable = [row for row in range(len(manifest.names)) if row not in damage]
    names = [manifest.names[row] for row in readable]
    records, digests = manifest.records[readable], manifest.digests[readable]
    if earlier is not None:
        present = set(manifest.names)
        others = [row for row, name in enumerate(earlier.names) if name not in present]
        names += [earlier.names[row] for row in others]
        records = torch.cat([records, earlier.records[others]])
        digests = torch.cat([digests, earlier.digests[others]])
    if not names:
        return
    packed = torch.frombuffer(bytearray(b"\0".join(names)), dtype=torch.uint8)
    write_tensors(file, {"names": packed, "records": records, "digests": digests}, {})
