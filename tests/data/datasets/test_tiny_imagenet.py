import hashlib
import zipfile
from dataclasses import replace

import pytest
from support.pictures import remove, write_image

from cwx.data.datasets import tiny_imagenet
from cwx.data.datasets.tiny_imagenet import TinyImageNet

# Not in the order of wnids.txt; the last two share their first word.
IDS = ("n01443537", "n02012849", "n03126707")
WORDS = """\
n00001740\tentity
n02012849\tcrane
n01443537\tgoldfish, Carassius auratus
n03126707\tcrane, derrick
"""
NAMES = ("goldfish", "crane (n02012849)", "crane (n03126707)")


def write_published(root):
    """The layout of the archive: bounding boxes beside images, validation labels, test images."""
    for number, key in enumerate(IDS):
        for i in range(2):
            write_image(root / f"train/{key}/images/{key}_{i}.JPEG", (64, 64), value=100 * number)
        (root / f"train/{key}/{key}_boxes.txt").write_text(f"{key}_0.JPEG\t0\t0\t63\t63\n")
    annotations = ""
    for i, key in enumerate((IDS[2], IDS[0], IDS[1], IDS[0])):
        write_image(root / f"val/images/val_{i}.JPEG", (64, 64), value=60 * i)
        annotations += f"val_{i}.JPEG\t{key}\t0\t32\t44\t62\n"
    (root / "val/val_annotations.txt").write_text(annotations)
    write_image(root / "test/images/test_0.JPEG", (64, 64))
    (root / "wnids.txt").write_text("\n".join(reversed(IDS)))
    (root / "words.txt").write_text(WORDS)
    return root


def write_by_class(root):
    for key in IDS:
        for i in range(2):
            # As some of the set's files, grey.
            write_image(root / f"train/{key}/{key}_{i}.JPEG", (64, 64), mode="L" if i else "RGB")
        write_image(root / f"val/{key}/val_7.JPEG", (64, 64))
    (root / "words.txt").write_text(WORDS)
    return root


def load(root, size=None):
    return TinyImageNet(root=str(root), size=size, interpolation="bicubic", download=False).load()


def test_the_published_layout_is_read(tmp_path):
    splits = load(write_published(tmp_path))
    assert splits.classes == NAMES
    assert splits.synsets == IDS
    assert splits.train.images.shape == (6, 3, 64, 64)
    assert splits.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits.test.labels.tolist() == [2, 0, 1, 0]
    # JPEG is not exact.
    assert splits.test.images[:, 0, 9, 9].int().div(60).round().tolist() == [0, 1, 2, 3]


def test_folders_by_class_are_read(tmp_path):
    splits = load(write_by_class(tmp_path), size=32)
    assert splits.classes == NAMES
    assert splits.synsets == IDS
    assert splits.train.images.shape == (6, 3, 32, 32)
    assert splits.test.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["a, b", "a", "c"], ("a (n01443537)", "a (n02012849)", "c")),
        (["fly\x1b[31m\x07,", " x\u202e  y\u2028z\r", "c"], ("fly [31m", "x y z", "c")),
        (["../../etc", "a/b", "$x$"], ("../../etc", "a/b", "$x$")),
        (["a (n02012849)", "a", "a"], IDS),
    ],
)
def test_names_are_printable_and_differ(tmp_path, words, names):
    root = write_by_class(tmp_path)
    lines = (f"{key}\t{text}" for key, text in zip(IDS, words, strict=True))
    (root / "words.txt").write_text("\n".join(lines))
    assert load(root).classes == names


def append(path, text):
    path.write_text(path.read_text() + text)


BROKEN = {
    "nothing": (lambda root: remove(root / "train"), r"no folder .*train: fetch http://cs231n"),
    "no validation": (lambda root: remove(root / "val"), r"no folder .*val: fetch http://cs231n"),
    "no labels": (
        lambda root: remove(root / "val/val_annotations.txt"),
        r"no .*val_annotations\.txt to label .*images: fetch http://cs231n",
    ),
    "a class less": (
        lambda root: remove(root / f"train/{IDS[1]}"),
        rf"wnids\.txt and .*train do not hold the same classes: {IDS[1]}; .*remove wnids\.txt",
    ),
    "a class more": (
        lambda root: write_image(root / "train/n99999999/0.JPEG", (64, 64)),
        r"wnids\.txt and .*train do not hold the same classes: n99999999;",
    ),
    "an empty class": (
        lambda root: [remove(file) for file in (root / f"train/{IDS[1]}/images").iterdir()],
        f"{IDS[1]} has no images",
    ),
    "no names": (lambda root: remove(root / "words.txt"), r"no .*words\.txt to name the classes"),
    "a name less": (
        lambda root: (root / "words.txt").write_text(f"{IDS[0]}\ta\n{IDS[1]}\t, b\n"),
        rf"words\.txt has no name for {IDS[1]}, {IDS[2]}: add a line",
    ),
    "labels cut off": (
        lambda root: (root / "val/val_annotations.txt").write_text(f"val_0.JPEG\t{IDS[0]}\n"),
        r"images without a label in .*: val_1\.JPEG, val_2\.JPEG, val_3\.JPEG; unpack",
    ),
    "an unknown label": (
        lambda root: append(root / "val/val_annotations.txt", "val_4.JPEG\tn9\t0\t0\t0\t0\n"),
        r"line 5 of .*val_annotations\.txt gives 'val_4\.JPEG' the class 'n9'",
    ),
    "a line cut off": (
        lambda root: append(root / "val/val_annotations.txt", "val_4"),
        r"line 5 of .*val_annotations\.txt gives 'val_4' the class ''",
    ),
    "an image less": (
        lambda root: remove(root / "val/images/val_2.JPEG"),
        r"val_annotations\.txt lists files that .*images lacks: val_2\.JPEG",
    ),
    "a name that leads out": (
        lambda root: append(
            root / "val/val_annotations.txt", f"../../test/images/test_0.JPEG\t{IDS[0]}\n"
        ),
        r"lists files that .* lacks: \.\./\.\./test/images/test_0\.JPEG",
    ),
    "a class that leads out": (
        lambda root: append(root / "wnids.txt", "\n../test"),
        r"do not hold the same classes: \.\./test",
    ),
    "a broken image": (
        lambda root: (root / "val/images/val_2.JPEG").write_bytes(b"\xff\xd8\xff"),
        r"val_2\.JPEG cannot be read",
    ),
    "another size": (
        lambda root: write_image(root / "val/images/val_2.JPEG", (32, 32)),
        r"val_2\.JPEG is 32x32; set data\.source\.size",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_set_is_refused_with_the_remedy(tmp_path, case):
    spoil, message = BROKEN[case]
    spoil(write_published(tmp_path))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_training_and_validation_must_have_the_same_classes(tmp_path):
    remove(write_by_class(tmp_path) / f"val/{IDS[0]}")
    with pytest.raises(ValueError, match=f"val and .*train do not hold the same classes: {IDS[0]}"):
        load(tmp_path)


def test_folders_that_are_no_synsets_are_refused(tmp_path):
    root = write_by_class(tmp_path)
    for split in ("train", "val"):
        (root / split / IDS[1]).rename(root / split / "crane")
    append(root / "words.txt", "crane\tcrane\n")
    with pytest.raises(ValueError, match="has a folder 'crane', which is not a WordNet id such as"):
        load(root)


def test_the_archive_is_unpacked_to_the_root(tmp_path, monkeypatch):
    whole = write_published(tmp_path / "made/tiny-imagenet-200")
    archive = tmp_path / "data/tiny-imagenet-200.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for path in whole.rglob("*"):
            file.write(path, path.relative_to(whole.parent))
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE", replace(tiny_imagenet.ARCHIVE, md5=md5))
    source = TinyImageNet(
        root=str(tmp_path / "data/tiny"), size=None, interpolation=None, download=True
    )
    source.prepare()
    assert source.load().classes == NAMES


def test_nothing_is_downloaded_by_default(tmp_path):
    source = TinyImageNet(
        root=str(tmp_path / "tiny"), size=None, interpolation=None, download=False
    )
    source.prepare()
    assert not list(tmp_path.iterdir())
    archive = tmp_path / "tiny-imagenet-200.zip"
    with pytest.raises(ValueError, match=f"as {archive} and set data.source.download=true"):
        source.load()
