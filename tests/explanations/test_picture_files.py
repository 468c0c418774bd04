"""One PNG per image: contents, whole multiples, and names that stay in the folder."""

import numpy as np
import pytest
import torch
from PIL import Image

from cwx.explanations.drawing import enlarge
from cwx.explanations.images import Explanations
from cwx.explanations.picture_files import write_pictures
from cwx.functional.images import Normalization

NORMALIZATION = Normalization(mean=[0.5] * 3, std=[0.5] * 3)
# Names of folders that a user may have.
CLASSES = (
    "../../evil",
    "Speed limit (20 km/h)",
    "/etc/passwd",
    "a\\b:c*?",
    "犬",
    "\n",
    "x" * 300,
    "..",
)


def write(folder, *, method="distill", shape=(3, 32, 32), classes=CLASSES):
    labels = torch.arange(len(classes)).repeat_interleave(2)
    explanations = Explanations(3 * torch.randn(len(labels), *shape), labels)
    write_pictures(folder / "images", method, explanations, classes, NORMALIZATION)
    return explanations


@pytest.mark.parametrize("method", ["distill", "../out", "my/iscp", "..", "."])
def test_there_is_a_file_per_image_and_none_outside_the_folder(tmp_path, method):
    write(tmp_path / "run", method=method)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2 * len(CLASSES)
    (folder,) = {path.parent for path in files}
    assert folder.parent == tmp_path / "run" / "images"
    names = sorted(path.name for path in files)
    assert names[:4] == [
        "0000_evil_001.png",
        "0000_evil_002.png",
        "0001_Speed-limit-20-km-h_001.png",
        "0001_Speed-limit-20-km-h_002.png",
    ]
    assert all(name.isascii() and len(name) < 64 for name in names)


@pytest.mark.parametrize(
    ("shape", "factor"),
    [((3, 32, 32), 8), ((3, 28, 20), 9), ((3, 200, 100), 1), ((3, 300, 300), 1)],
)
def test_a_file_has_the_displayed_pixels_at_a_whole_multiple(tmp_path, shape, factor):
    explanations = write(tmp_path, shape=shape, classes=("cat", "dog"))
    displayed = NORMALIZATION.denormalize(explanations.for_display(NORMALIZATION).images)
    pixels = (displayed[3].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    with Image.open(tmp_path / "images/distill/0001_dog_002.png") as image:
        assert np.array_equal(np.asarray(image), enlarge(pixels, factor))
