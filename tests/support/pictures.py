"""Tiny picture files to build data sets of."""

from pathlib import Path

from PIL import Image


def picture(path: Path, size=(6, 5), mode="RGB", value=128) -> None:
    """One colour: `value`, 0, 255, or `value` if grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


def lose(path: Path) -> None:
    """Remove a file, or a folder and all in it."""
    if path.is_dir():
        for inner in path.iterdir():
            lose(inner)
        path.rmdir()
    else:
        path.unlink()
