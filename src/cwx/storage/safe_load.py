"""Reading files of tensors from elsewhere: no code in such a file is executed."""

import codecs
import re
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from cwx.storage.file_kinds import foreign_kind, is_safetensors, pickled_globals
from cwx.storage.regular_files import check_regular, digest_regular


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
        ValueError: the file is missing, damaged, of another kind, needs other classes (names them),
            or declares far more memory than it has bytes.
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
        raise ValueError(_refusal(path, kind, form, error)) from error
    declared = declared_bytes(value)
    if declared > _EXPANSION * size + _SLACK:
        raise ValueError(
            f"the {kind} {path} has {size:,} bytes, but its tensors would take {declared:,} bytes: "
            f"it repeats or expands them; save it anew as {form}"
        )
    return value


# A file may hold a tensor under a few names.
_EXPANSION, _SLACK = 4, 2**20


# Names of classes in a pickle; torch searches its message about a longer one for minutes.
_LONGEST_NAME = 500


def _load_pickled(path: Path) -> Any:
    if any(len(name) > _LONGEST_NAME for name in pickled_globals(path)):
        raise ValueError("a name of a class that is no name")
    # Memory-mapped, weights take no memory until they are read.
    mapped = zipfile.is_zipfile(path)
    with torch.serialization.safe_globals(_HARMLESS):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _harmless() -> list[Any]:
    """What reconstructs numbers and arrays of NumPy, and a namespace of arguments."""
    core = np.array(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [cls for cls in vars(np.dtypes).values() if isinstance(cls, type)]
    former = [
        (function, f"numpy.{package}.multiarray.{name}")
        for package in ("core", "_core")
        for function, name in ((core, "_reconstruct"), (scalar, "scalar"))
    ]
    # Numbers in protocol 2 are bytes in a text.
    return [*former, np.ndarray, np.dtype, *dtypes, codecs.encode, Namespace]


_HARMLESS = _harmless()


def _refusal(path: Path, kind: str, form: str, error: Exception) -> str:
    """Why a file cannot be loaded: the classes that it needs, or damage."""
    try:
        names = [name for name in pickled_globals(path) if len(name) <= _LONGEST_NAME]
    except OSError:
        names = []
    needed = [name for name in names if not _is_known(name)]
    if needed:
        shown = ", ".join(needed[:5]) + (f" and {len(needed) - 5} more" if needed[5:] else "")
        return (
            f"the {kind} {path} is not plain tensors: reading it would run code of {shown}; no "
            f"code in it was run: where you trust it, save it anew as {form}"
        )
    return (
        f"the {kind} {path} is truncated, damaged or not plain tensors ({type(error).__name__}); "
        f"no code in it was run: copy it again, or save it anew as {form}"
    )


def _is_known(name: str) -> bool:
    known = {
        f"{item.__module__}.{item.__qualname__}" for item in _HARMLESS if isinstance(item, type)
    }
    return (
        name in known
        or name in {item[1] for item in _HARMLESS if isinstance(item, tuple)}
        or name in {"_codecs.encode", "collections.OrderedDict", "collections.Counter"}
        or re.fullmatch(r"torch\.(_utils\._rebuild\w*|\w*(Storage|Size|device)|Tensor)", name)
        is not None
        or name.startswith(("torch.storage.", "torch.nn.parameter.", "torch.serialization."))
        or isinstance(getattr(torch, name.removeprefix("torch."), None), torch.dtype)
    )


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
