"""Reading files of tensors from elsewhere: no code in such a file is executed."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


def file_digest(path: Path, kind: str) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Args:
        kind: the kind of file, for the error message.

    Raises:
        ValueError: the file does not exist or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"the {kind} {path} cannot be read ({error.strerror}): name an existing file"
        ) from error


def load_tensors(path: Path, kind: str, form: str) -> Any:
    """Load a file of `torch.save` or of safetensors on the CPU, without executing code in it.

    Args:
        kind: the kind of file, for the error message.
        form: the expected content, for the error message.

    Returns:
        Containers of tensors and numbers, as the file nests them.

    Raises:
        ValueError: the file is missing, damaged, or holds anything but containers of tensors and
            numbers.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Memory-mapped, weights take no memory until they are read.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # The unpickler may raise anything on a damaged or hostile file.
        raise ValueError(
            f"the {kind} {path} is missing, truncated, damaged or not plain tensors "
            f"({type(error).__name__}); no code in it was run: copy it again, or save it anew as "
            f"{form}"
        ) from error


def is_plain(value: Any) -> bool:
    """Whether a value is a dense, unquantized tensor in main memory."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def describe(value: Any) -> str:
    """The type of a value in words, for an error message."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} ({value.layout}, {value.device})"
    return "an empty list" if value == [] else f"a {type(value).__name__}"
