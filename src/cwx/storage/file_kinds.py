"""What a file of weights is, from its bytes and without running code in it."""

import re
import zipfile
from pathlib import Path

from cwx.storage.regular_files import open_regular

_MAGIC = {
    b"\x89HDF": "an HDF5 file, such as Keras writes",
    b"\x93NUMPY": "an array of NumPy",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"7z\xbc\xaf'\x1c": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive: unpack it",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a pointer of Git LFS, not the file: run git lfs pull",
    b"<!DOCTYPE": "a page of HTML, as a failed download leaves",
    b"<html": "a page of HTML, as a failed download leaves",
}
_MOST_HEADER = 100 * 2**20
# The pickle of an archive, without its tensors, has kilobytes; lists of many images megabytes.
_MOST_PICKLED = 512 * 2**20
_STATE_DICT = "save the state_dict of the original network"
# A model of ONNX begins with the version of its format, then the name of its producer.
_ONNX = re.compile(rb"\x08[\x01-\x20](\x12.[\w. -]{3}|:)", re.DOTALL)
_TEXT = re.compile(rb"[\t\r\n\x20-\x7e]{16,}")
_HEAD = 512
_TAR_OF_TORCH = (
    "in the tar format of the oldest releases of torch: load it there, and save its state_dict anew"
)


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
        head = file.read(_HEAD)
        if kind := next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None):
            return kind
        if _ONNX.match(head):
            return f"a model of ONNX: {_STATE_DICT}"
        if head[4:8] == b"TFL3":
            return "a model of TensorFlow Lite"
        if head[257:262] == b"ustar":
            is_of_torch = head.startswith(b"sys_info\0")
            return _TAR_OF_TORCH if is_of_torch else "a tar archive: unpack it"
        if not head.startswith(b"PK"):
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
        return f"a TorchScript program (torch.jit.save), which runs code: {_STATE_DICT}"
    if any(name.endswith(("serialized_exported_program.json", "archive_format")) for name in names):
        return f"a program of torch.export, without a network in Python: {_STATE_DICT}"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays"
    if not any(name.endswith("data.pkl") for name in names):
        return "a zip archive that torch.save did not write: unpack it"
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "a compressed archive, which torch.save does not write"
    if any(e.filename.endswith("data.pkl") and e.file_size > _MOST_PICKLED for e in entries):
        return f"an archive whose pickle alone has more than {_MOST_PICKLED:,} bytes"
    return None


def is_text(path: Path) -> bool:
    """Whether a file begins as a text.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        return _TEXT.fullmatch(file.read(_HEAD)) is not None
