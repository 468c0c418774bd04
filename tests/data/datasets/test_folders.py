import os

import pytest
import torch
from PIL import Image
from support.pictures import UNSET, remove, write_image

from cwx.data.datasets.class_folders import match_listing, preview_names
from cwx.data.datasets.folders import ClassFolders, ImageFolder


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        for name in ("cat", "dog"):
            for i in range(count):
                write_image(tmp_path / split / name / f"{i}.png", value=10 * i)
    return tmp_path


def load(root, **settings):
    return ImageFolder(root=str(root), **{**UNSET, **settings}).load()


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


def test_folder_names_that_are_wordnet_ids_are_the_synsets(folder):
    for split in ("train", "test"):
        (folder / split / "cat").rename(folder / split / "n02121620")
        (folder / split / "dog").rename(folder / split / "n02084071")
    assert load(folder).synsets == ("n02084071", "n02121620")


def test_test_images_may_be_in_val(folder):
    expected = load(folder)
    (folder / "test").rename(folder / "val")
    assert torch.equal(load(folder).test.images, expected.test.images)


def test_the_folder_test_comes_before_val(folder, caplog):
    write_image(folder / "val/cat/0.png", value=7)
    assert 7 not in load(folder).test.images[:, 0, 0, 0]
    assert "folders that are not read: val" in caplog.text


def test_synsets_of_other_folders_are_refused_before_images_are_read(folder):
    (folder / "train/cat/bad.png").write_bytes(b"no")
    with pytest.raises(ValueError, match="synsets is 'dogs', and there is no such class"):
        load(folder, synsets={"cat": "n02121620", "dogs": "n02084071"})


def test_folder_resizes_and_crops(folder):
    write_image(folder / "train/cat/large.png", size=(40, 20))
    assert load(folder, size=4).train.images.shape == (7, 3, 4, 4)


def test_folder_resizes_the_shorter_side_before_it_crops(folder):
    Image.radial_gradient("L").convert("RGB").save(folder / "train/cat/round.png")
    images = load(folder, size=4, resize=8).train.images
    alone = load_test(folder / "train", size=4, resize=8).test.images
    assert torch.equal(images, alone)
    assert not torch.equal(images, load(folder, size=4).train.images)


def test_grey_images_keep_one_channel_unless_asked(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            write_image(tmp_path / split / name / "0.png", mode="L", value=7)
    assert load(tmp_path).train.images.shape[1] == 1
    assert load(tmp_path, channels=3).train.images.unique().tolist() == [7]
    write_image(tmp_path / "train/a/1.png")
    assert load(tmp_path).train.images.shape[1] == 3


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"

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
    "an empty file": (lambda root: (root / "test/cat/x.gif").touch(), r"x\.gif .*it is empty"),
    "EPS in a PNG": (
        lambda root: (root / "train/cat/x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0"),
        r"x\.png cannot be read as an image .it is EPS",
    ),
    "a pipe": (lambda root: os.mkfifo(root / "train/cat/x.png"), "a named pipe, not a regular"),
    "a broken link": (
        lambda root: (root / "train/cat/x.png").symlink_to("nowhere"),
        r"x\.png cannot be read as an image .No such file",
    ),
    "most files are lost": (
        lambda root: [(root / f"train/cat/{n}.heic").touch() for n in "abcd"],
        r"cat has only 3 images of the formats .*, and 4 other files .4 \.heic: a\.heic, ",
    ),
    "a class in another format": (
        lambda root: (root / "train/eel").mkdir() or (root / "train/eel/a.avif").touch(),
        "eel has no image of the formats that are read .*1 other file .1 .avif: a.avif",
    ),
    "images in no class": (
        lambda root: [write_image(root / f"train/{n}.jpg") for n in range(7)],
        r"train has 6 images in folders of classes and 7 in no such folder, such as 0\.jpg",
    ),
    "one name in two Unicode forms": (
        lambda root: [write_image(root / "train" / n / "0.png") for n in (COMPOSED, DECOMPOSED)],
        f"two folders of the name {COMPOSED}, .*which differ only in how Unicode writes it",
    ),
    "another case": (
        lambda root: (root / "test/cat").rename(root / "test/Cat"),
        "train lacks: Cat; did you mean .*train/cat",
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


@pytest.mark.parametrize("settings", [{"channels": 2}, {"size": 0}, {"resize": 4}])
def test_impossible_settings_are_refused(folder, settings):
    with pytest.raises(ValueError, match=f"data.source.{next(iter(settings))}"):
        load(folder, **settings)


def test_names_in_two_unicode_forms_are_one_class(folder):
    write_image(folder / "train" / DECOMPOSED / "0.png")
    write_image(folder / "test" / COMPOSED / "0.png")
    synsets = {"cat": "n00000001", "dog": "n00000002", DECOMPOSED: "n00000003"}
    splits = load(folder, synsets=synsets)
    assert splits.classes == (COMPOSED, "cat", "dog")
    assert splits.test.labels.tolist() == [0, 1, 2]
    assert splits.synsets == ("n00000003", "n00000001", "n00000002")
    listing = names(folder, "cat", "dog", DECOMPOSED)
    assert load_test(folder / "test", classes=listing).classes == ("cat", "dog", COMPOSED)


def test_what_is_left_out_is_counted_and_named_in_the_log(folder, caplog):
    (folder / "train/cat/1.avif").touch()
    (folder / "train/dog/read.me").touch()
    write_image(folder / "train/loose.png")
    write_image(folder / "train/dog/.hidden.png")
    (folder / "train/.DS_Store").touch()
    (folder / "val").mkdir()
    remove(folder / "test/dog")
    assert len(load(folder).train) == 6
    text = caplog.text
    assert "train: 6 images are read, and 4 other files" in text
    assert "1 .avif" in text
    assert "loose.png, cat/1.avif, dog/.hidden.png, …) are left out" in text
    assert f"{folder} has folders that are not read: val" in text
    assert "test lacks classes: dog" in text
    assert "DS_Store" not in text


def test_whole_folders_leave_no_line(folder, caplog):
    load(folder)
    assert not caplog.text


@pytest.mark.parametrize("suffix", ["gif", "jfif", "JPG", "dat", "tiff", "webp", "bmp", "pgm"])
def test_classes_of_any_suffix_in_any_depth_are_read_whole(folder, suffix, caplog):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for i, path in enumerate((f"a.{suffix}", f"x/b.{suffix}", f"x/y/c.{suffix}")):
                file = folder / split / name / path
                write_image(folder / "image.png", value=i)
                file.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(folder / "image.png") as image:
                    image.save(file, {"dat": "PNG", "jfif": "JPEG", "pgm": "PPM"}.get(suffix))
    splits = load(folder)
    assert (len(splits.train), len(splits.test)) == (12, 8)
    assert "left out" not in caplog.text


def test_the_number_of_channels_comes_from_all_files(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            write_image(tmp_path / split / name / "0.png", mode="L", value=40)
            write_image(tmp_path / split / name / "1.gif", mode="L", value=50)
    assert load(tmp_path).train.images.unique().tolist() == [40, 50]
    assert load(tmp_path).train.images.shape[1] == 1
    # A class of grey images among others in colour.
    write_image(tmp_path / "test/b/2.png", mode="RGB", value=9)
    splits = load(tmp_path)
    assert splits.train.images.shape[1] == 3
    assert splits.train.images.unique().tolist() == [40, 50]


@pytest.mark.parametrize(("mode", "name"), [("RGBA", "9.png"), ("LA", "9.png"), ("RGBA", "9.gif")])
def test_transparent_images_are_refused_without_a_background(folder, mode, name):
    image = Image.new("LA", (6, 5), (0, 0))
    image.putpixel((0, 0), (0, 255))
    image.convert(mode).save(folder / "train/cat" / name)
    message = rf"{name} has transparent pixels: set data\.source\.background"
    for read in (lambda **s: load(folder, **s), lambda **s: load_test(folder / "train", **s)):
        with pytest.raises(ValueError, match=message):
            read()
    images = load(folder, background="white").train.images
    assert images[3, :, 0, :2].tolist() == [[0, 255]] * 3


def load_test(root, **settings):
    arguments = {**UNSET, "classes": None, "resize": None, "images": None, **settings}
    return ClassFolders(root=str(root), **arguments).load()


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


def test_a_list_of_class_names_equals_a_file(folder, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("dog\nemu\ncat\n")
    by_list, by_file = (
        load_test(folder / "test", classes=classes)
        for classes in (["dog", "emu", "cat"], str(file))
    )
    assert by_list.classes == by_file.classes == ("dog", "emu", "cat")
    assert torch.equal(by_list.test.labels, by_file.test.labels)
    with pytest.raises(ValueError, match=r"data\.source\.classes names more than once: cat"):
        load_test(folder / "test", classes=["cat", "cat"])


def test_at_most_so_many_images_are_read_evenly(folder):
    whole, part = load_test(folder / "train"), load_test(folder / "train", images=3)
    assert len(part.test) == 3
    assert torch.equal(part.test.images, whole.test.spread(3).images)
    assert part.classes == whole.classes


def test_file_names_that_start_with_wordnet_ids_are_of_these_classes(tmp_path):
    for name, value in (("n02_a", 1), ("n00000002_b", 2), ("n00000001_c", 3), ("n00000002_a", 4)):
        Image.new("L", (4, 4), value).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match="it needs one folder of images per class"):
        load_test(tmp_path)
    (tmp_path / "n02_a.png").unlink()
    splits = load_test(tmp_path)
    assert splits.classes == ("n00000001", "n00000002")
    assert splits.test.labels.tolist() == [0, 1, 1]
    assert splits.test.images[:, 0, 0, 0].tolist() == [3, 4, 2]
