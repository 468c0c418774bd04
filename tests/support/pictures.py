"""Small image files for test data sets."""

from pathlib import Path

import torch
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


def noise_folders(root: Path) -> Path:
    """Class folders with 33 training and 18 test images of noise, 8x9 pixels."""
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 11), ("test", 6)):
        for name in ("ant", "bee", "cat"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (9, 8, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(root / split / name / f"{i}.png")
    return root
