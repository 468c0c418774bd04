"""What a file of weights is, from its bytes and without running code in it."""

import logging
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cwx.storage.regular_files import open_regular

log = logging.getLogger(__name__)

_MAGIC = {
    b"\x89HDF": "an HDF5 file, such as Keras writes",
    b"\x93NUMPY": "an array of NumPy",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"version https://git-lfs": "a pointer of Git LFS, not the file: run git lfs pull",
    b"<!DOCTYPE": "a page of HTML, as a failed download leaves",
    b"<html": "a page of HTML, as a failed download leaves",
}
# Pickled contents are read up to so many bytes, to name their classes.
_MOST_PICKLED = 16 * 2**20
_MOST_HEADER = 100 * 2**20


def is_safetensors(path: Path) -> bool:
    """Whether the bytes begin as safetensors: the length of a header, then a JSON object.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _MOST_HEADER


def foreign_kind(path: Path) -> str | None:
    """What an intact file is that holds no plain tensors of torch, in words; ``None`` if unknown.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(64)
        if kind := next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None):
            return kind
        if head[257:262] == b"ustar" or not head.startswith(b"PK"):
            return None
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                return _archive_kind(archive)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return None


def _archive_kind(archive: zipfile.ZipFile) -> str | None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
        return (
            "a TorchScript program (torch.jit.save), which runs code: save the state_dict of the "
            "original network"
        )
    if any(name.endswith(("serialized_exported_program.json", "archive_format")) for name in names):
        return (
            "a program of torch.export, without a network in Python: save the state_dict of the "
            "original network"
        )
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays"
    if not any(name.endswith("data.pkl") for name in names):
        return "a zip archive that torch.save did not write: unpack it"
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "a compressed archive, which torch.save does not write"
    return None


def pickled_globals(path: Path) -> list[str]:
    """The classes and functions that unpickling a file of torch.save or pickle would need.

    Sorted names such as ``argparse.Namespace``; empty if the file is no intact pickle.

    Raises:
        OSError: the file cannot be read.
    """
    names: set[str] = set()
    with open_regular(path) as file:
        try:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                # The older format of torch.save is several pickles.
                while len(names) < 1000 and file.tell() < _MOST_PICKLED:
                    names |= set(_globals(file))
            else:
                with zipfile.ZipFile(file) as archive:
                    name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
                    with archive.open(name) as data:
                        names |= set(_globals(data))
        except Exception:
            # Storages follow the pickles, or the file is damaged from here on.
            log.debug("%s is no pickle from here on", path)
    return sorted(names)


def _globals(file: IO[bytes]) -> Iterator[str]:
    """The globals of the next pickle in `file`."""
    strings: list[str] = []
    memo: list[str | None] = []
    last: str | None = None
    for opcode, argument, position in pickletools.genops(file):
        if position is not None and position > _MOST_PICKLED:
            return
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
            yield ".".join(strings[-2:])
        if opcode.name == "MEMOIZE":
            memo.append(last)
            continue
        if opcode.name in ("BINGET", "LONG_BINGET"):
            index = int(argument or 0)
            last = memo[index] if index < len(memo) else None
        else:
            last = argument if isinstance(argument, str) else None
        if last is not None:
            strings = [*strings[-3:], last]
