"""The files of a bank of clean networks, named on a command line."""

from collections.abc import Sequence
from pathlib import Path

from cwx.errors import UserError, printable

# Endings of files of weights in the folder of a bank.
_WEIGHTS = {".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".tar"}
_SUFFIXES = ", ".join(sorted(_WEIGHTS))


def bank_files(paths: Sequence[Path]) -> list[Path]:
    """The files of a bank; of a folder, all its files of weights.

    Raises:
        UserError: there is no such file, or a folder has no files of weights.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(file for file in path.glob("*") if file.suffix in _WEIGHTS)
        if path.is_dir() and not inside:
            raise UserError(f"--bank {printable(path)} has no file of weights ({_SUFFIXES})")
        if not path.exists():
            raise UserError(f"--bank {printable(path)} does not exist")
        files += inside if path.is_dir() else [path]
    return files
