"""Tar shards give the images of the same files in folders, and bad shards are refused by name."""

import io
import json
import logging
import os
import tarfile

import pytest
import torch
from support.builders import image_data, small_convnet, train_experts
from support.encoded_images import encoded, image_tree
from support.pictures import UNSET
from support.shards import pack_folder, write_shard

from cwx.data.datasets.folders import ImageFolder
from cwx.data.datasets.webdataset import WebDataset, expand
from cwx.data.random_crops import RandomCrops
from cwx.data.streamed_images import StreamedImages
from cwx.storage.trajectories import TrajectoryStore

FIELDS = {"image": ["jpg", "png", "webp"], "label": "cls", "classes": None, "resize": None}


def png(value=0, size=8):
    return encoded(torch.full((size, size, 3), value, dtype=torch.uint8))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return image_tree(tmp_path_factory.mktemp("images"))


@pytest.fixture
def shards(images, tmp_path):
    return pack_folder(images, tmp_path / "shards")


def loaded(source, manifests, **settings):
    settings = {"mean": 0.5, "std": 0.25, "workers": 0, **settings}
    return image_data(source, manifests=str(manifests), **settings)


def tars(root, manifests, *, source=None, **settings):
    chosen = {**UNSET, **FIELDS, "size": 8, "train": "train-*.tar", "test": "test-{000..001}.tar"}
    chosen |= {"index": str(manifests / "index"), **(source or {})}
    return loaded(WebDataset(root=str(root), **chosen), manifests, **settings)


def folder(root, manifests, **settings):
    return loaded(ImageFolder(root=str(root), **{**UNSET, "size": 8}), manifests, **settings)


def assert_same(first, second):
    assert first.classes == second.classes
    for split in ("train", "test"):
        a, b = getattr(first.splits, split), getattr(second.splits, split)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.images[:], b.images[:])


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_shards_give_the_images_of_the_same_files_in_folders(images, shards, tmp_path, storage):
    data = tars(shards, tmp_path, storage=storage, per_class=9)
    assert isinstance(data.splits.train.images, StreamedImages) is (storage == "disk")
    assert_same(folder(images, tmp_path, storage="memory", per_class=9), data)
    # The index is read again.
    assert_same(data, tars(shards, tmp_path, storage=storage, per_class=9))


@pytest.mark.parametrize("workers", [0, 2])
def test_training_from_shards_is_training_from_folders(images, shards, tmp_path, workers):
    crops = RandomCrops(smallest_area=0.5, largest_ratio=1.5, flip=0.5)
    trained = []
    for number, make in enumerate((folder, tars)):
        root = (images, shards)[number]
        data = make(root, tmp_path, storage="disk", workers=workers, random_crops=crops)
        store = TrajectoryStore(tmp_path / str(number))
        trained += [train_experts(data, [3], store, network=small_convnet, epochs=2)]
    (expected,), (actual,) = trained
    for epoch in expected.recorded_epochs:
        state, other = expected.state(epoch), actual.state(epoch)
        assert all(torch.equal(state[name], other[name]) for name in state)


def test_a_shard_is_indexed_and_read_once(shards, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first = tars(shards, tmp_path, storage="disk").fingerprint()
    assert caplog.text.count("is new or changed: it is indexed once") == 4
    assert "51 of 51 image files are new or changed" in caplog.text
    caplog.clear()
    assert tars(shards, tmp_path, storage="disk").fingerprint() == first
    assert "new or changed" not in caplog.text
    # Another time is no other content; a damaged index is written anew.
    os.utime(shards / "train-000.tar", ns=(1, 1))
    for file in (tmp_path / "index").iterdir():
        file.write_bytes(file.read_bytes()[:-7])
    assert tars(shards, tmp_path, storage="disk").fingerprint() == first
    assert "of 51 image files are new or changed" in caplog.text


def test_the_identity_is_that_of_the_content(images, shards, tmp_path):
    first = tars(shards, tmp_path, storage="disk")
    moved = pack_folder(images, tmp_path / "moved")
    members = [("a.txt", b"no image" * 99), *members_of(moved / "train-000.tar")]
    write_shard(moved / "train-000.tar", members[1:])
    assert tars(moved, tmp_path / "2", storage="disk").fingerprint() == first.fingerprint()
    members[1] = (members[1][0], png())
    write_shard(moved / "train-000.tar", members[1:])
    changed = tars(moved, tmp_path / "2", storage="disk")
    assert changed.fingerprint() != first.fingerprint()
    assert changed.test_fingerprint() == first.test_fingerprint()


def members_of(shard):
    with tarfile.open(shard) as tar:
        return [(entry.name, tar.extractfile(entry).read()) for entry in tar]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_changes_during_a_run_stops_it(shards, tmp_path, workers):
    data = tars(shards, tmp_path, storage="disk", workers=workers)
    view = data.batches(size=8, seeds=[0])
    shard = shards / "train-001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:2000])
    with pytest.raises(
        ValueError, match=r"train-001.tar cannot be read .*the archive is too short"
    ):
        list(view.train_dataloader())
    write_shard(shard, [(name, content[::-1]) for name, content in members_of_bytes(content)])
    with pytest.raises(ValueError, match=r"in .*train-001.tar has changed since the images"):
        list(view.train_dataloader())
    shard.write_bytes(content)
    assert len(list(view.train_dataloader())) == 5


def members_of_bytes(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(entry.name, tar.extractfile(entry).read()) for entry in tar]


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_a_damaged_image_is_named_or_skipped(tmp_path, caplog, storage):
    members = [
        (f"{i}.{field}", content)
        for i in range(6)
        for field, content in (("png", png(i)[: 40 if i == 3 else None]), ("cls", b"%d" % (i % 2)))
    ]
    for split in ("train", "test"):
        write_shard(tmp_path / f"{split}-000.tar", members)
    source = {"source": {"test": "test-000.tar"}}
    with pytest.raises(ValueError, match=r"3.png in .*train-000.tar cannot be read as an image"):
        tars(tmp_path, tmp_path, storage=storage, **source)
    data = tars(tmp_path, tmp_path, storage=storage, on_error="skip", **source)
    assert "2 of 12 image files cannot be read and are left out" in caplog.text
    assert data.splits.train.labels.tolist() == [0, 1, 0, 0, 1]


def labelled(tmp_path, labels, field="cls", classes=None, label=None):
    for split in ("train", "test"):
        members = []
        for i, content in enumerate(labels):
            members += [(f"a/{i}.PNG", png(i)), (f"a/{i}.{field}", content)]
        write_shard(tmp_path / f"{split}.tar", [("README", b""), *members])
    source = {"train": "train.tar", "test": ["test.tar"], "classes": classes}
    data = tars(tmp_path, tmp_path, source={**source, "label": label or field})
    return data.classes, data.splits.train.labels.tolist()


def test_labels_are_names_or_indices(tmp_path):
    assert labelled(tmp_path, [b"10\n", b"9", b"10"]) == (("9", "10"), [1, 0, 1])
    assert labelled(tmp_path, ["é".encode(), b"b"]) == (("b", "é"), [1, 0])
    names = ["x", "y", "z"]
    assert labelled(tmp_path, [b"2", b"0"], classes=names) == (("x", "y", "z"), [2, 0])
    assert labelled(tmp_path, [b"z", b"x"], classes=names) == (("x", "y", "z"), [2, 0])
    (tmp_path / "names.txt").write_text("7\n5\n")
    # A number is a name where classes have numbers for names.
    file = str(tmp_path / "names.txt")
    assert labelled(tmp_path, [b"5", b"7"], classes=file) == (("7", "5"), [1, 0])
    objects = [json.dumps({"label": label, "n": [1]}).encode() for label in (1, "x")]
    settings = {"field": "json", "label": "json:label", "classes": names}
    assert labelled(tmp_path, objects, **settings) == (("x", "y", "z"), [1, 0])


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (b"3", {"classes": ["x", "y"]}, "a/1.PNG in .*has the label '3', which is none of the 2"),
        (b"1", {"classes": ["7", "5"]}, "has the label '1', which is none"),
        (b"", {}, r"the sample a/1 in .*train.tar has no label in cls .*: it is empty"),
        (b"\xff", {}, "it is no text"),
        (b"a\0b", {}, "no name of at most 1000 printable"),
        (b"x" * 2**21, {}, "a field cls of 2,097,152 bytes"),
        (b"x", {"label": "txt"}, r"has no label: there is no field txt .*but cls, png"),
        (b"no", {"label": "cls:a"}, "no JSON"),
        (b"[" * 10**5, {"label": "cls:a"}, "no JSON"),
        (b"[1]", {"label": "cls:a"}, "it is no JSON object"),
        (b'{"b": 1}', {"label": "cls:a"}, "no key a, but b"),
        (b'{"a": 1.5}', {"label": "cls:a"}, "float is neither a whole number nor a name"),
        (b'{"a": true}', {"label": "cls:a"}, "bool is neither"),
    ],
)
def test_a_label_that_names_no_class_is_refused(tmp_path, content, settings, message):
    first = b'{"a": 0}' if "cls:a" in settings.values() else b"x" if not settings else b"0"
    first = b"7" if settings.get("classes") == ["7", "5"] else first
    with pytest.raises(ValueError, match=message):
        labelled(tmp_path, [first, content], **settings)


GOOD = [("0.png", png(0)), ("0.cls", b"0"), ("1.png", png(1)), ("1.cls", b"1")]


def entry(kind, name="2.png", **settings):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in settings.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([*GOOD, ("2.cls", b"1")], "the sample 2 in .*has no image: of the fields jpg, png, webp"),
        ([*GOOD, ("2.png", png())], "the sample 2 in .*has no label"),
        ([*GOOD, *GOOD[:2]], "two samples of the key 0"),
        ([*GOOD, GOOD[3]], "the member 1.cls twice in one sample"),
        ([], "have no samples"),
        ([("README", b"x")], "have no samples"),
    ],
)
def test_bad_samples_are_refused(tmp_path, members, message):
    write_shard(tmp_path / "train.tar", members)
    write_shard(tmp_path / "test.tar", GOOD)
    with pytest.raises(ValueError, match=message):
        tars(tmp_path, tmp_path, source={"train": "train.tar", "test": "test.tar"})


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (entry(tarfile.SYMTYPE, linkname="/etc/passwd"), "member 2.png, which is a link"),
        (entry(tarfile.LNKTYPE, linkname="0.png"), "which is a link"),
        (entry(tarfile.CHRTYPE), "which is a device"),
        (entry(tarfile.FIFOTYPE), "which is a device, a pipe"),
        (entry(tarfile.REGTYPE, size=2**31), "2,147,483,648 bytes, more than"),
    ],
)
def test_members_that_are_no_plain_files_are_refused(tmp_path, extra, message):
    write_shard(tmp_path / "train.tar", GOOD, extra=[extra])
    write_shard(tmp_path / "test.tar", GOOD)
    with pytest.raises(ValueError, match=message):
        tars(tmp_path, tmp_path, source={"train": "train.tar", "test": "test.tar"})


def test_names_of_members_are_no_paths(tmp_path):
    names = ["../0", "/etc/1"]
    for split in ("train", "test"):
        members = [
            (f"{name}.{field}", png(i) if field == "png" else b"%d" % i)
            for i, name in enumerate(names)
            for field in ("png", "cls")
        ]
        write_shard(tmp_path / "s" / f"{split}.tar", members, extra=[entry(tarfile.DIRTYPE, "d")])
    before = {file for file in tmp_path.rglob("*") if "index" not in file.parts}
    source = {"train": "train.tar", "test": "test.tar"}
    data = tars(tmp_path / "s", tmp_path, source=source, storage="disk")
    assert data.splits.train.images[:][:, 0, 0, 0].tolist() == [0, 1]
    after = {file for file in tmp_path.rglob("*") if "index" not in file.parts}
    assert {file.suffix for file in after - before} <= {".safetensors", ".lock"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:700], "is truncated, damaged or no tar"),
        (lambda content: content[: 512 * 3], "unexpected end of data"),
        # A whole member, but not the next one, nor the mark at the end.
        (lambda content: content[: content.index(b"1.png")], "no end mark"),
        (lambda content: content.replace(b"1.png", b"1,png"), "no end mark"),
        (lambda content: content * 2, "no end mark"),
        (lambda content: content + bytes(2**21), "bytes follow the last member"),
        (lambda _: b"", "is truncated, damaged or no tar"),
        (lambda _: b"<html>" * 900, "is truncated, damaged or no tar"),
    ],
)
def test_a_truncated_or_damaged_shard_is_refused(tmp_path, change, message):
    for split in ("train", "test"):
        write_shard(tmp_path / f"{split}.tar", GOOD)
    file = tmp_path / "train.tar"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ValueError, match=rf"train.tar.*{message}.*: copy or pack it again"):
        tars(tmp_path, tmp_path, source={"train": "train.tar", "test": "test.tar"})


def test_a_header_without_bounds_is_refused(tmp_path):
    file = write_shard(tmp_path / "train.tar", [("x" * 2**21 + ".png", png())])
    write_shard(tmp_path / "test.tar", GOOD)
    assert file.stat().st_size > 2**21
    with pytest.raises(ValueError, match=r"a header of 2,\d+,\d+ bytes"):
        tars(tmp_path, tmp_path, source={"train": "train.tar", "test": "test.tar"})


@pytest.mark.parametrize(("mode", "kind"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_a_compressed_shard_is_refused(tmp_path, mode, kind):
    write_shard(tmp_path / "train.tar", GOOD, mode)
    write_shard(tmp_path / "test.tar", GOOD)
    with pytest.raises(ValueError, match=f"train.tar is compressed with {kind}.*plain tar"):
        tars(tmp_path, tmp_path, source={"train": "train.tar", "test": "test.tar"})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"train": "tain-*.tar"}, "data.source.train: no file in .* matches 'tain-[*].tar'"),
        ({"train": "train-{000..002}.tar"}, "no file in .* matches 'train-002.tar'"),
        ({"train": "train-{2..1}.tar"}, "has the range {2..1}"),
        ({"train": "train-{a,b}.tar"}, "give several patterns as a list"),
        ({"train": []}, "data.source.train is empty"),
        ({"train": "../train-*.tar"}, "give the path of a shard in data.source.root"),
        ({"train": "https://x.org/train.tar"}, "give the path of a shard in data.source.root"),
        ({"train": ["train-000.tar", "train-*.tar"]}, "train-000.tar more than once"),
        ({"train": "test-000.tar"}, "is in data.source.train and in data.source.test"),
        ({"label": "json:"}, "data.source.label is 'json:'"),
        ({"size": None, "resize": 8}, "without data.source.size"),
        ({"channels": 2}, "data.source.channels is 2"),
        ({"image": ["tiff"]}, "has no image"),
    ],
)
def test_bad_settings_are_refused(shards, tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        tars(shards, tmp_path, source=source)
    with pytest.raises(ValueError, match="there is no folder"):
        tars(shards / "no", tmp_path)


def test_shards_of_test_images_are_enough(shards, tmp_path):
    data = tars(shards, tmp_path, source={"train": None}, storage="disk")
    assert (len(data.splits.train), len(data.splits.test)) == (0, 18)
    assert data.classes == ("ant", "bee", "cat")
    larger = data.source.with_size(16, 20).test_images(torch.tensor([3, 0]))
    assert larger.images.shape == (2, 3, 16, 16)
    assert larger.labels.tolist() == [0, 0]


def test_ranges_keep_their_digits():
    assert list(expand("{8..10}-{0..1}", "x")) == [
        *("8-0", "8-1", "9-0", "9-1", "10-0", "10-1"),
    ]


def test_samples_are_those_of_the_package_webdataset(shards, tmp_path):
    package = pytest.importorskip("webdataset.tariterators")
    names = []
    for file in (shards / "train-000.tar", shards / "train-001.tar"):
        with file.open("rb") as stream:
            members = [{**member, "__url__": ""} for member in package.tar_file_iterator(stream)]
        names += [sample["cls"].decode() for sample in package.group_by_keys(members)]
    data = tars(shards, tmp_path)
    assert len(names) == 33
    assert [data.classes[label] for label in data.splits.train.labels.tolist()] == names
