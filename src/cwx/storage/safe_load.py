"""Reading files of tensors from elsewhere: no code in such a file is executed."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cwx.storage.file_kinds import foreign_kind, is_safetensors
from cwx.storage.harmless_classes import HARMLESS
from cwx.storage.pickle_scan import pickled_globals
from cwx.storage.refusals import LONGEST_NAME, refusal
from cwx.storage.regular_files import check_regular, digest_regular, open_regular


def file_digest(path: Path, kind: str) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Args:
        kind: the kind of file, for the error message.

    Raises:
        ValueError: the file does not exist or cannot be read.
    """
    try:
        return digest_regular(path)
    except OSError as error:
        raise ValueError(
            f"the {kind} {path} cannot be read ({error.strerror}): name an existing file"
        ) from error


def load_tensors(path: Path, kind: str, form: str) -> Any:
    """Load a file of `torch.save` or of safetensors on the CPU, without executing code in it.

    Beside tensors, containers and numbers, such a file may hold numbers and arrays of NumPy and an
    ``argparse.Namespace``, whose reconstruction runs no code of the file.

    Args:
        kind: the kind of file, for the error message.
        form: the expected content, for the error message.

    Returns:
        Containers of tensors and numbers, as the file nests them.

    Raises:
        CodeNeededError: reading the file would run code of classes, which are named.
        ValueError: the file is missing, damaged, of another kind, or declares far more memory than
            it has bytes.
    """
    try:
        size = check_regular(path).st_size
        safetensors = is_safetensors(path)
        foreign = None if safetensors else foreign_kind(path)
    except OSError as error:
        raise ValueError(
            f"the {kind} {path} cannot be read ({error.strerror}): name an existing file"
        ) from error
    if foreign:
        raise ValueError(f"the {kind} {path} is {foreign}; give {form}")
    try:
        value = load_file(path) if safetensors else _load_pickled(path)
    except Exception as error:
        # The unpickler may raise anything on a damaged or hostile file.
        raise refusal(path, kind, form, error) from error
    declared = declared_bytes(value)
    if declared > _EXPANSION * size + _SLACK:
        raise ValueError(
            f"the {kind} {path} has {size:,} bytes, but its tensors would take {declared:,} bytes: "
            f"it repeats or expands them; save it anew as {form}"
        )
    return value


# A file may hold a tensor under a few names.
_EXPANSION, _SLACK = 4, 2**20


def _load_pickled(path: Path) -> Any:
    if any(len(name) > LONGEST_NAME for name in pickled_globals(path)):
        raise ValueError("a name of a class that is no name")
    with torch.serialization.safe_globals(HARMLESS):
        if path.suffix == ".safetensors":
            # torch takes a path of this name for safetensors, whatever its bytes.
            with open_regular(path) as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        # Memory-mapped, weights take no memory until they are read.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def declared_bytes(value: Any) -> int:
    """The memory that copies of all tensors in nested containers would take.

    A tensor or container that appears several times counts each time.
    """
    sizes: dict[int, int] = {}
    stack = [(value, False)]
    while stack:
        item, is_expanded = stack.pop()
        key = id(item)
        if isinstance(item, Tensor):
            sizes[key] = 64 if item.is_meta or item.is_nested else 64 + _bytes_of(item)
            continue
        children = _children(item)
        if is_expanded:
            sizes[key] = 64 + sum(sizes.get(id(child), 0) for child in children)
        elif children and key not in sizes:
            # A container within itself counts as nothing there.
            sizes[key] = 0
            stack.append((item, True))
            stack += [(child, False) for child in children]
    return sizes.get(id(value), 0)


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _children(item: Any) -> list[Any]:
    if isinstance(item, Mapping):
        return [*item.values()]
    return [*item] if isinstance(item, list | tuple | set) else []


def is_plain(value: Any) -> bool:
    """Whether a value is a dense, unquantized tensor of real numbers in main memory."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_nested
        and not value.is_quantized
        and not value.is_complex()
    )


def describe(value: Any) -> str:
    """The type of a value in words, for an error message."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} ({value.layout}, {value.device})"
    return "an empty list" if value == [] else f"a {type(value).__name__}"
