"""A generated folder of JPEG files, and the memory of a process with all its children."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

# WordNet ids of ten classes, so that studies of neurons know their similarity.
CLASSES = (
    *("n01503061", "n02084071", "n02121620", "n02374451", "n02430045"),
    *("n02691156", "n02958343", "n03001627", "n04194289", "n04490091"),
)
SIDE = 64


def generate(folder: Path, images: int) -> Path:
    """`images` training files and a fifth as many test files of 64x64 pixels.

    Each has a smooth random pattern in the colours of its class, which a network can learn.
    """
    root = folder / str(images)
    if (root / "complete").exists():
        return root
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (len(CLASSES), 3))
    for split, count in (("train", images), ("test", images // 5)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            label = index % len(CLASSES)
            noise = generator.integers(0, 256, (8, 8, 3))
            small = ((colours[label] + 2 * noise) // 3).astype(np.uint8)
            picture = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            picture.save(root / split / CLASSES[label] / f"{index:07}.jpg", quality=90)
    (root / "complete").touch()
    return root


def proportional_memory(process: int) -> float:
    """The proportional set size (PSS) of a process and all its children, in MB.

    Shared memory counts once. Processes that end meanwhile count as 0.
    """
    return sum(map(_pss, _tree(process))) / 1024


def _tree(process: int) -> Iterator[int]:
    yield process
    try:
        threads = list(Path(f"/proc/{process}/task").iterdir())
        children = " ".join((thread / "children").read_text() for thread in threads)
    except OSError:
        return
    for child in children.split():
        yield from _tree(int(child))


def _pss(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
