import csv
import hashlib
import zipfile
from dataclasses import replace

import pytest
import torch
from support.pictures import remove, write_image
from torchvision import datasets

from cwx.data.datasets import gtsrb
from cwx.data.datasets.gtsrb import GTSRB, SIGNS

HEADER = ["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"]
TEST = (16, 1, 38, 1)


def write_training(folder, tracks):
    """For each class, a list of bounding boxes and images of `tracks` signs, in many sizes."""
    for label in range(43):
        for track in range(tracks):
            size = (15 + label, 20 + 2 * track)
            write_image(folder / f"{label:05}/{track:05}_00000.ppm", size, value=5 * label)
        (folder / f"{label:05}/GT-{label:05}.csv").write_text(";".join(HEADER))


def write_listing(path, labels):
    with path.open("w", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(HEADER)
        for i, label in enumerate(labels):
            rows.writerow([f"{i:05}.ppm", 53, 54, 6, 5, 48, 49, label])


@pytest.fixture
def root(tmp_path):
    """The layout of the archives."""
    write_training(tmp_path / "GTSRB/Final_Training/Images", tracks=2)
    write_training(tmp_path / "GTSRB/Training", tracks=1)
    for i in range(len(TEST)):
        write_image(tmp_path / f"GTSRB/Final_Test/Images/{i:05}.ppm", (30 + i, 30), value=50 * i)
    (tmp_path / "GTSRB/Final_Test/Images/GT-final_test.test.csv").write_text(";".join(HEADER[:-1]))
    write_listing(tmp_path / "GT-final_test.csv", TEST)
    return tmp_path


def source(root, **settings):
    arguments = {
        **{"training": "whole", "size": 32, "interpolation": "bicubic", "download": False},
        **settings,
    }
    return GTSRB(root=str(root), **arguments)


def test_the_published_layout_is_read(root):
    splits = source(root).load()
    assert splits.train.images.shape == (86, 3, 32, 32)
    assert torch.equal(splits.train.labels, torch.arange(43).repeat_interleave(2))
    assert torch.equal(splits.train.images[:, 0, 5, 5].int(), 5 * splits.train.labels.int())
    assert splits.test.labels.tolist() == list(TEST)
    assert splits.test.images[:, 0, 5, 5].tolist() == [0, 50, 100, 150]


def test_the_smaller_training_split_equals_that_of_torchvision(root, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/gtsrb").symlink_to(root)
    splits = source(root, training="torchvision", size=20).load()
    for split, images in (("train", splits.train), ("test", splits.test)):
        reference = datasets.GTSRB(tmp_path / "linked", split)
        assert [label for _, label in reference] == images.labels.tolist()
        for (whole, _), image in zip(reference, images.images, strict=True):
            assert whole.getpixel((5, 5)) == tuple(image[:, 5, 5].tolist())


def test_the_folder_of_the_archives_may_be_the_root(root):
    (root / "GT-final_test.csv").rename(root / "GTSRB/GT-final_test.csv")
    assert len(source(root / "GTSRB").load().test) == len(TEST)


def test_every_sign_has_a_unique_name():
    assert len(set(SIGNS)) == len(SIGNS) == 43
    assert (SIGNS[5], SIGNS[14], SIGNS[40]) == (
        "Speed limit (80km/h)",
        "Stop",
        "Roundabout mandatory",
    )


def append(path, text):
    path.write_text(path.read_text() + text)


ERDA = "fetch https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"
BROKEN = {
    "no training images": (
        lambda root: remove(root / "GTSRB/Final_Training"),
        f"no folder .*Images: {ERDA}/GTSRB_Final_Training_Images.zip; .* as .*Final_Training/Im",
    ),
    "no test images": (
        lambda root: remove(root / "GTSRB/Final_Test"),
        f"no .*Final_Test/Images: {ERDA}/GTSRB_Final_Test_Images.zip",
    ),
    "no test labels": (
        lambda root: remove(root / "GT-final_test.csv"),
        rf"no .*GT-final_test\.csv: {ERDA}/GTSRB_Final_Test_GT\.zip",
    ),
    "a class less": (
        lambda root: remove(root / "GTSRB/Final_Training/Images/00017"),
        "folders 00000 to 00042, one per class: 00017; unpack it again",
    ),
    "a class more": (
        lambda root: write_image(root / "GTSRB/Final_Training/Images/00043/0.ppm"),
        "folders 00000 to 00042, one per class: 00043;",
    ),
    "the list without labels": (
        lambda root: (root / "GT-final_test.csv").write_text("Filename;Width\n00000.ppm;5\n"),
        "line 2 of .* gives '00000.ppm' the ClassId None, not one of 0 to 42",
    ),
    "a label too large": (
        lambda root: write_listing(root / "GT-final_test.csv", (*TEST[:3], 43)),
        "line 5 of .* the ClassId '43'",
    ),
    "commas": (
        lambda root: (root / "GT-final_test.csv").write_text("Filename,ClassId\n00000.ppm,5\n"),
        "line 2 of .* gives None the ClassId None",
    ),
    "an empty list": (
        lambda root: write_listing(root / "GT-final_test.csv", ()),
        "lists no images",
    ),
    "labels cut off": (
        lambda root: write_listing(root / "GT-final_test.csv", TEST[:3]),
        r"images without a label in .*: 00003\.ppm; unpack",
    ),
    "an image less": (
        lambda root: remove(root / "GTSRB/Final_Test/Images/00002.ppm"),
        r"lists files that .* lacks: 00002\.ppm",
    ),
    "a name that leads out": (
        lambda root: append(root / "GT-final_test.csv", "../../GTSRB/x.ppm;5;5;0;0;5;5;3\n"),
        r"lists files that .* lacks: \.\./\.\./GTSRB/x\.ppm",
    ),
    "a cut image": (
        lambda root: (root / "GTSRB/Final_Test/Images/00002.ppm").write_bytes(b"P6\n5 5\n255\nab"),
        r"00002\.ppm cannot be read",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_set_is_refused_with_the_remedy(root, case):
    spoil, message = BROKEN[case]
    spoil(root)
    with pytest.raises(ValueError, match=message):
        source(root).load()


@pytest.mark.parametrize("settings", [{"training": "half"}, {"size": 0}])
def test_impossible_settings_are_refused(root, settings):
    with pytest.raises(ValueError, match=f"data.source.{next(iter(settings))}"):
        source(root, **settings)


def test_missing_archives_are_unpacked_into_one_root(root, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()

    def pack(archive):
        file = home / archive.url.rpartition("/")[2]
        part = root / archive.part
        with zipfile.ZipFile(file, "w") as packed:
            for path in [part, *part.rglob("*")]:
                packed.write(path, path.relative_to(root))
        return replace(archive, md5=hashlib.md5(file.read_bytes()).hexdigest())

    whole = pack(gtsrb.TRAINING["whole"])
    monkeypatch.setitem(gtsrb.TRAINING, "whole", whole)
    for name in ("TEST_IMAGES", "TEST_LABELS"):
        monkeypatch.setattr(gtsrb, name, pack(getattr(gtsrb, name)))
    unpacked = source(home, download=True)
    unpacked.prepare()
    unpacked.prepare()
    actual, expected = unpacked.load(), source(root).load()
    assert torch.equal(actual.train.images, expected.train.images)
    assert torch.equal(actual.test.labels, expected.test.labels)
    with pytest.raises(ValueError, match="no folder .*/home/GTSRB/Training: fetch"):
        source(home, training="torchvision").load()
