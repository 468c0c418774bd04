from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cwx.data.sources import Digits, ImageFolder, Torchvision


def picture(path: Path, size=(6, 5), mode="RGB", value=128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        for name in ("cat", "dog"):
            for i in range(count):
                picture(tmp_path / split / name / f"{i}.png", value=10 * i)
    return tmp_path


def load(root, **settings):
    chosen = {"size": None, "channels": None, **settings}
    return ImageFolder(root=str(root), **chosen).load()


def test_digits_are_all_there_and_split_within_classes():
    splits = Digits().load()
    assert (len(splits.train), len(splits.test)) == (1442, 355)
    assert splits.train.images.shape[1:] == (1, 8, 8)
    assert splits.train.images.max() == 255
    counts = torch.bincount(splits.test.labels)
    assert counts.min() >= 34
    again = Digits().load()
    assert torch.equal(splits.test.images, again.test.images)


def test_folder_is_read_with_its_classes_in_order(folder):
    splits = load(folder)
    assert splits.classes == ("cat", "dog")
    assert splits.train.images.shape == (6, 3, 5, 6)
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.train.images[2, :, 0, 0].tolist() == [20, 0, 255]


def test_folder_resizes_and_crops(folder):
    picture(folder / "train/cat/large.png", size=(40, 20))
    assert load(folder, size=4).train.images.shape == (7, 3, 4, 4)


def test_grey_images_keep_one_channel_unless_asked(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            picture(tmp_path / split / name / "0.png", mode="L", value=7)
    assert load(tmp_path).train.images.shape[1] == 1
    assert load(tmp_path, channels=3).train.images.unique().tolist() == [7]
    picture(tmp_path / "train/a/1.png")
    assert load(tmp_path).train.images.shape[1] == 3


def lose(path: Path):
    for file in sorted(path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()


BROKEN = {
    "no folder": (lambda root: lose(root / "train") or (root / "train").rmdir(), "no folder"),
    "empty": (lambda root: lose(root / "train"), "is empty"),
    "a class without images": (lambda root: (root / "train/eel").mkdir(), "eel has no images"),
    "one class": (
        lambda root: lose(root / "train/dog") or (root / "train/dog").rmdir(),
        "one class",
    ),
    "unknown class": (lambda root: picture(root / "test/eel/0.png"), "train lacks: eel"),
    "not an image": (
        lambda root: (root / "train/cat/bad.png").write_bytes(b"\x89PNG no"),
        r"bad\.png cannot be read",
    ),
    "cut image": (
        lambda root: (root / "train/cat/cut.png").write_bytes(
            (root / "train/cat/0.png").read_bytes()[:45]
        ),
        r"cut\.png cannot be read",
    ),
    "sizes": (lambda root: picture(root / "train/dog/9.png", size=(7, 7)), "set data.source.size"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_refused_with_the_remedy(folder, case):
    spoil, message = BROKEN[case]
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize("settings", [{"channels": 2}])
def test_impossible_settings_are_refused(folder, settings):
    with pytest.raises(ValueError, match=f"data.source.{next(iter(settings))}"):
        load(folder, **settings)


class Published:
    """What torchvision's CIFAR-10 looks like from outside."""

    classes = ("a", "b")

    def __init__(self, root, train, download):
        if not (Path(root) / "here").exists():
            raise RuntimeError("Dataset not found")
        self.data = np.full((4, 5, 6, 3), 9, np.uint8)
        self.targets = [0, 1, 0, 1]


def test_torchvision_layout_becomes_channels_first(tmp_path):
    (tmp_path / "here").touch()
    source = Torchvision(dataset=Published, root=str(tmp_path), download=False)
    source.prepare()
    splits = source.load()
    assert splits.train.images.shape == (4, 3, 5, 6)
    assert splits.classes == ("a", "b")


def test_a_missing_published_set_is_said(tmp_path):
    source = Torchvision(dataset=Published, root=str(tmp_path), download=True)
    with pytest.raises(ValueError, match="could not be fetched"):
        source.prepare()
