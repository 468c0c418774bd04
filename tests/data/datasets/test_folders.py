import os

import pytest
import torch
from support.pictures import remove, write_image

from cwx.data.datasets.folders import ClassFolders, ImageFolder, match_listing, preview_names


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        for name in ("cat", "dog"):
            for i in range(count):
                write_image(tmp_path / split / name / f"{i}.png", value=10 * i)
    return tmp_path


def load(root, **settings):
    arguments = {"size": None, "channels": None, "synsets": None, **settings}
    return ImageFolder(root=str(root), **arguments).load()


def test_folder_is_read_with_its_classes_in_order(folder):
    splits = load(folder)
    assert splits.classes == ("cat", "dog")
    assert splits.train.images.shape == (6, 3, 5, 6)
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.train.images[2, :, 0, 0].tolist() == [20, 0, 255]
    assert splits.synsets is None


def test_folders_may_have_synsets(folder):
    synsets = {"dog": "n02084071", "cat": "n02121620"}
    assert load(folder, synsets=synsets).synsets == ("n02121620", "n02084071")


def test_synsets_of_other_folders_are_refused_before_images_are_read(folder):
    (folder / "train/cat/bad.png").write_bytes(b"no")
    with pytest.raises(ValueError, match="no class is called 'dogs' .*none is given for 'dog'"):
        load(folder, synsets={"cat": "n02121620", "dogs": "n02084071"})


def test_folder_resizes_and_crops(folder):
    write_image(folder / "train/cat/large.png", size=(40, 20))
    assert load(folder, size=4).train.images.shape == (7, 3, 4, 4)


def test_grey_images_keep_one_channel_unless_asked(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            write_image(tmp_path / split / name / "0.png", mode="L", value=7)
    assert load(tmp_path).train.images.shape[1] == 1
    assert load(tmp_path, channels=3).train.images.unique().tolist() == [7]
    write_image(tmp_path / "train/a/1.png")
    assert load(tmp_path).train.images.shape[1] == 3


BROKEN = {
    "no folder": (lambda root: remove(root / "train"), "no folder .* set data.source.root"),
    "an unprintable name": (
        lambda root: write_image(root / "train" / os.fsdecode(b"a\xff\x1b[2J") / "0.png"),
        r"unprintable characters, 'a.udcff.x1b.2J': rename it",
    ),
    "empty": (
        lambda root: remove(root / "train") or (root / "train").mkdir(),
        "is empty",
    ),
    "a class without images": (lambda root: (root / "train/eel").mkdir(), "eel has no images"),
    "one class": (lambda root: remove(root / "train/dog"), "one class"),
    "unknown class": (lambda root: write_image(root / "test/eel/0.png"), "train lacks: eel"),
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
    "sizes": (
        lambda root: write_image(root / "train/dog/9.png", size=(7, 7)),
        "set data.source.size",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_refused_with_the_remedy(folder, case):
    spoil, message = BROKEN[case]
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize("settings", [{"channels": 2}, {"size": 0}])
def test_impossible_settings_are_refused(folder, settings):
    with pytest.raises(ValueError, match=f"data.source.{next(iter(settings))}"):
        load(folder, **settings)


def load_test(root, **settings):
    arguments = {"classes": None, "size": None, "resize": None, "channels": None, "synsets": None}
    return ClassFolders(root=str(root), **{**arguments, **settings}).load()


def names(folder, *lines):
    file = folder / "names.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


def test_test_images_alone_leave_an_empty_training_set(folder):
    splits = load_test(folder / "test")
    assert splits.classes == ("cat", "dog")
    assert splits.train.images.shape == (0, 3, 5, 6)
    assert (splits.train.images.dtype, splits.train.labels.dtype) == (torch.uint8, torch.int64)
    assert splits.test.labels.tolist() == [0, 1]
    assert torch.equal(splits.test.images, load(folder).test.images)


def test_the_folder_may_lack_some_classes_of_the_networks(folder):
    listing = names(folder, "eel", "dog", "", " ant ", "cat", "")
    splits = load_test(folder / "test", classes=listing)
    assert splits.classes == ("eel", "dog", "ant", "cat")
    assert splits.test.labels.tolist() == [1, 3]
    assert splits.synsets is None
    remove(folder / "test/dog")
    assert load_test(folder / "test", classes=listing).test.labels.tolist() == [3]


def test_class_names_that_are_wordnet_ids_are_the_synsets(folder):
    (folder / "test/cat").rename(folder / "test/n02121620")
    (folder / "test/dog").rename(folder / "test/n02084071")
    ids = ("n02084071", "n02121620")
    assert load_test(folder / "test").synsets == ids
    synsets = {"n02084071": "n00000001", "n02121620": "n00000002"}
    assert load_test(folder / "test", synsets=synsets).synsets == ("n00000001", "n00000002")
    other = names(folder, *ids, "fish")
    assert load_test(folder / "test", classes=other).synsets is None


UNKNOWN = r"test has folders that .*names.txt does not name: dog .the nearest to dog are dig, frog"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["cat", "dig", "frog", "eel"], UNKNOWN),
        (["cat"], "names 1 classes: a classifier needs two or more"),
        ([], "names 0 classes"),
        (["cat", "dog", "cat"], "names more than once: cat; keep one line each"),
        (["cat", "dog", "\x1b[2J"], r"a name with unprintable characters, '.x1b.2J': change it"),
    ],
)
def test_names_that_do_not_fit_are_refused_before_images_are_read(folder, lines, message):
    (folder / "test/cat/bad.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=message):
        load_test(folder / "test", classes=names(folder, *lines))


@pytest.mark.parametrize("file", ["nowhere.txt", "", "test/cat/0.png"])
def test_names_that_cannot_be_read_are_refused(folder, file):
    with pytest.raises(ValueError, match="cannot be read as text .*data.source.classes to a file"):
        load_test(folder / "test", classes=str(folder / file))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 2}, "data.source.channels is 2"),
        ({"size": 0}, "data.source.size is 0"),
        ({"size": 4, "resize": 3}, "data.source.resize is 3, less than the 4 pixels of"),
        ({"resize": 3}, "data.source.resize is 3 without data.source.size: give both"),
    ],
)
def test_impossible_settings_of_test_images_are_refused(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        load_test(folder / "test", **settings)


def test_a_folder_without_test_images_is_refused(folder):
    with pytest.raises(ValueError, match="no folder .*nowhere: set data.source.root"):
        load_test(folder / "nowhere")
    remove(folder / "test/dog")
    with pytest.raises(ValueError, match="has one class, 'cat'"):
        load_test(folder / "test")


def test_images_are_in_the_order_of_their_listing(folder):
    images = folder / "train/cat"
    labels = [("2.png", 5), ("0.png", 1), ("1.png", 5)]
    assert match_listing(images, labels, folder / "list") == [
        (images / name, n) for name, n in labels
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0.png", "1.png"], r"images without a label in .*list: 2\.png"),
        (["0.png", "1.png", "2.png", "3.png"], r"list lists files that .* lacks: 3\.png"),
        (["0.png", "1.png", "2.png", "0.png"], r"more than once: 0\.png"),
        (["0.png", "1.png", "../cat/2.png"], r"lacks: \.\./cat/2\.png"),
        (["0.png", "1.png", "2.png", "a\0b"], "lacks: a"),
    ],
)
def test_a_listing_that_does_not_match_its_folder_is_refused(folder, names, message):
    with pytest.raises(ValueError, match=message):
        match_listing(folder / "train/cat", [(name, 0) for name in names], folder / "list")


def test_a_listing_without_its_folder_is_refused(folder):
    with pytest.raises(ValueError, match="no folder .*/nowhere, whose images .*/list lists"):
        match_listing(folder / "nowhere", [], folder / "list")


def test_long_lists_of_names_are_shortened():
    assert preview_names({"d", "c", "a", "b", "e"}) == "a, b, c and 2 more"
