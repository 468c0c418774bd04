"""Small image files for test data sets."""

from pathlib import Path

from PIL import Image

# Settings of `ImageFolder` and its siblings that a test does not set.
UNSET = dict.fromkeys(
    ("size", "resize", "interpolation", "channels", "background", "white_level", "synsets")
)


def write_image(path: Path, size=(6, 5), mode="RGB", value=128) -> None:
    """An image file of one colour: RGB (`value`, 0, 255), or grey `value` in mode ``L``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content."""
    if path.is_dir():
        for inner in path.iterdir():
            remove(inner)
        path.rmdir()
    else:
        path.unlink()
