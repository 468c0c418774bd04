"""Draw what each backdoor changes: `uv run docs/draw_corruptions.py <folder of images>`.

The folder is one with a subfolder of image files for each class, such as CIFAR-10's test images.
Writes docs/corruptions.png: a row for each backdoor in conf/corruption, with its own settings.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from cwx.data.image_files import Reader
from cwx.data.pixel_conversion import PixelRules
from cwx.explanations.drawing import sheet
from cwx.functional.rng import stream

ROOT = Path(__file__).resolve().parents[1]
DRAWING = Path(__file__).with_name("corruptions.png")
# Of these classes of the folder, the first image each.
CLASSES = (4, 7)
BACKDOORS = (
    "badnets", "all_to_all", "blended", "sig", "patches", "patch_face", "wanet", "adaptive_blend",
    "adaptive_patch", "input_aware",
)  # fmt: skip


def read_images(folder: Path) -> Tensor:
    """The first image ``[2, C, H, W]`` of two classes, as bytes."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(sorted(classes[index].iterdir())[0], index) for index in CLASSES]
    return Reader(channels=3, fit=None, rules=PixelRules()).read(files).images


def read_trigger(name: str) -> Any:
    """The trigger of a file of conf/corruption."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        settings = compose("run", [f"corruption={name}"]).corruption.trigger
    return instantiate(settings, _convert_="all")


def columns_of(images: Tensor, trigger: Any) -> dict[str, Tensor]:
    """The images of a row, unit pixels, by column; covers only if the backdoor has them."""
    tests = trigger.apply(images)
    columns = {"clean": images / 255}
    poisoned = trigger.poison(images, stream(0, 1)) if hasattr(trigger, "poison") else tests
    columns["poisoned"] = poisoned / 255
    columns["difference, stretched"] = stretched(poisoned.float() - images.float())
    if hasattr(trigger, "cover"):
        columns["cover"] = trigger.cover(images, stream(0, 2)) / 255
    columns["test image with the trigger"] = tests / 255
    return columns


def stretched(difference: Tensor) -> Tensor:
    """Grey where nothing changes; the largest change is black or white."""
    largest = difference.abs().amax().clamp_min(1)
    return 0.5 + 0.5 * difference / largest


def draw(images: Tensor) -> None:
    """Write the figure."""
    rows = [columns_of(images, read_trigger(name)) for name in BACKDOORS]
    titles = max(rows, key=len)
    shown = {title: [i for i, row in enumerate(rows) if title in row] for title in titles}
    columns = {title: torch.cat([rows[i][title] for i in shown[title]]) for title in titles}
    labels = {
        title: torch.tensor(indices).repeat_interleave(len(images))
        for title, indices in shown.items()
    }
    sheet(columns, labels, list(BACKDOORS)).savefig(DRAWING, format="png")


if __name__ == "__main__":
    draw(read_images(Path(sys.argv[1])))
