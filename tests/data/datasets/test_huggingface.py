"""Data sets of Hugging Face give the images of the same files in folders."""

import logging
import sys
from types import SimpleNamespace

import pytest
import torch
from support.builders import image_data, small_convnet, train_experts
from support.encoded_images import image_tree
from support.pictures import UNSET

from cwx.data.datasets.folders import ImageFolder
from cwx.data.datasets.huggingface import HuggingFace
from cwx.data.random_crops import RandomCrops
from cwx.data.streamed_images import StreamedImages
from cwx.storage.trajectories import TrajectoryStore

COLUMNS = {"train": "train", "test": "test", "image": "image", "label": "label", "classes": None}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return image_tree(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip("datasets")


def rows(package, split, kind=None):
    """The files of a split in the order of an image folder, with their classes as labels."""
    names = sorted(folder.name for folder in split.iterdir())
    files = [(file, name) for name in names for file in sorted((split / name).iterdir())]
    columns = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file, _ in files],
        "label": [name if kind == "text" else names.index(name) for _, name in files],
    }
    label = package.Value("string") if kind == "text" else package.ClassLabel(names=names)
    features = package.Features({"image": package.Image(), "label": label})
    return package.Dataset.from_dict(columns, features=features)


@pytest.fixture(scope="module")
def saved(package, images, tmp_path_factory):
    """A data set in each of its forms, by name."""
    root = tmp_path_factory.mktemp("saved")
    splits = {split: rows(package, images / split) for split in ("train", "test")}
    package.DatasetDict(splits).save_to_disk(str(root / "saved"))
    for split in splits:
        (root / "parquet").mkdir(exist_ok=True)
        splits[split].to_parquet(str(root / "parquet" / f"{split}-00000-of-00001.parquet"))
        text = rows(package, images / split, "text")
        (root / "text").mkdir(exist_ok=True)
        text.to_parquet(str(root / "text" / f"{split}.parquet"))
    return root


def loaded(source, manifests, **settings):
    settings = {"mean": 0.5, "std": 0.25, "workers": 0, **settings}
    return image_data(source, manifests=str(manifests), **settings)


def tables(root, manifests, *, source=None, **settings):
    chosen = {**UNSET, **COLUMNS, "size": 8, "name": None, "revision": None, "resize": None}
    chosen |= {"cache": str(manifests / "cache"), **(source or {})}
    return loaded(HuggingFace(dataset=str(root), **chosen), manifests, **settings)


def folder(root, manifests, **settings):
    return loaded(ImageFolder(root=str(root), **{**UNSET, "size": 8}), manifests, **settings)


@pytest.mark.parametrize("storage", ["memory", "disk"])
@pytest.mark.parametrize("form", ["saved", "parquet", "text"])
def test_rows_give_the_images_of_the_same_files_in_folders(images, saved, tmp_path, form, storage):
    expected = folder(images, tmp_path, storage="memory", per_class=9)
    data = tables(saved / form, tmp_path, storage=storage, per_class=9)
    assert isinstance(data.splits.train.images, StreamedImages) is (storage == "disk")
    assert data.classes == expected.classes == ("ant", "bee", "cat")
    for split in ("train", "test"):
        a, b = getattr(expected.splits, split), getattr(data.splits, split)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.images[:], b.images[:])


@pytest.mark.parametrize("workers", [0, 2])
def test_training_from_rows_is_training_from_folders(images, saved, tmp_path, workers):
    crops = RandomCrops(smallest_area=0.5, largest_ratio=1.5, flip=0.5)
    trained = []
    for number, make in enumerate((folder, tables)):
        root = (images, saved / "saved")[number]
        data = make(root, tmp_path, storage="disk", workers=workers, random_crops=crops)
        store = TrajectoryStore(tmp_path / str(number))
        trained += [train_experts(data, [3], store, network=small_convnet, epochs=2)]
    (expected,), (actual,) = trained
    for epoch in expected.recorded_epochs:
        state, other = expected.state(epoch), actual.state(epoch)
        assert all(torch.equal(state[name], other[name]) for name in state)


def test_the_identity_is_that_of_the_content(package, images, saved, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first = tables(saved / "saved", tmp_path, storage="disk")
    assert "51 of 51 image files are new or changed" in caplog.text
    caplog.clear()
    assert tables(saved / "saved", tmp_path, storage="disk").fingerprint() == first.fingerprint()
    assert "new or changed" not in caplog.text
    # The same content in other files, which datasets gives another fingerprint.
    other = tables(saved / "parquet", tmp_path, storage="disk")
    assert other.fingerprint() == first.fingerprint()
    splits = {split: rows(package, images / split) for split in ("train", "test")}
    splits["train"] = splits["train"].select([1, 0, *range(2, 33)])
    package.DatasetDict(splits).save_to_disk(str(tmp_path / "changed"))
    changed = tables(tmp_path / "changed", tmp_path, storage="disk")
    assert changed.fingerprint() != first.fingerprint()
    assert changed.test_fingerprint() == first.test_fingerprint()


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_that_change_during_a_run_stop_it(package, images, tmp_path, workers):
    splits = {split: rows(package, images / split) for split in ("train", "test")}
    package.DatasetDict(splits).save_to_disk(str(tmp_path / "data"))
    data = tables(tmp_path / "data", tmp_path, storage="disk", workers=workers)
    view = data.batches(size=8, seeds=[0])
    assert len(list(view.train_dataloader())) == 5
    (file,) = (tmp_path / "data/train").glob("*.arrow")
    content = file.read_bytes()
    image = sorted((images / "train/bee").iterdir())[4].read_bytes()
    with file.open("r+b") as stream:
        stream.seek(content.index(image) + len(image) // 2)
        stream.write(b"\0\1\2\3")
    with pytest.raises(ValueError, match="row 15 of train in .* has changed since the images"):
        list(view.train_dataloader())


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_a_damaged_image_is_named_or_skipped(package, images, tmp_path, caplog, storage):
    train, test = (rows(package, images / split) for split in ("train", "test"))
    values = train.cast_column("image", package.Image(decode=False))[:]
    values["image"][5]["bytes"] = values["image"][5]["bytes"][:60]
    values["image"][6] = {"bytes": None, "path": "/etc/hostname"}
    values["image"][7] = None
    train = package.Dataset.from_dict(values, features=train.features)
    # Save as somebody else's program may: with paths instead of images.
    (tmp_path / "data").mkdir()
    plain = train.cast_column("image", package.Image(decode=False)).with_format("arrow")
    write_parquet(plain[:], tmp_path / "data/train.parquet")
    test.to_parquet(str(tmp_path / "data/test.parquet"))
    with pytest.raises(ValueError, match="row 5 of train in .*data cannot be read as an image"):
        tables(tmp_path / "data", tmp_path, storage=storage)
    data = tables(tmp_path / "data", tmp_path, storage=storage, on_error="skip")
    assert "3 of 51 image files cannot be read and are left out" in caplog.text
    assert data.splits.train.labels.bincount().tolist() == [8, 11, 11]


def write_parquet(table, path):
    from pyarrow import parquet

    parquet.write_table(table, path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"train": "trian"}, "has no split trian: did you mean data.source.train=train"),
        ({"test": "val"}, "has no split val: there are train, test"),
        ({"image": "img"}, "no column img"),
        ({"label": "lable"}, "has no column lable: did you mean data.source.label=label"),
        ({"image": "label", "label": "image"}, "the column label of .* has no images"),
        ({"label": "image"}, "row 0 of train in .* has no label in the column image"),
        ({"classes": ["ant", "bee"]}, "row 22 of train in .* the label 'cat', which is none of"),
        ({"train": "test"}, "networks would be tested"),
        ({"size": None, "resize": 8}, "without data.source.size"),
    ],
)
def test_bad_settings_are_refused(saved, tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        tables(saved / "saved", tmp_path, source=source)


@pytest.mark.parametrize("label", [-1, None])
def test_a_row_without_a_label_is_refused(package, images, tmp_path, label):
    train, test = (rows(package, images / split) for split in ("train", "test"))
    columns = test.cast_column("image", package.Image(decode=False))[:]
    columns["label"][4] = label
    test = package.Dataset.from_dict(columns, features=test.features)
    package.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "data"))
    with pytest.raises(ValueError, match="row 4 of test in .* has no label in the column label"):
        tables(tmp_path / "data", tmp_path)


@pytest.fixture(scope="module")
def hub(package, images, tmp_path_factory):
    """A folder in the layout of the hub: two configurations of different images."""
    root = tmp_path_factory.mktemp("hub")
    parts = {"test-first": ("test", "train"), "train-first": ("train", "test")}
    card = ["---", "configs:"]
    for name, (train, test) in parts.items():
        (root / name).mkdir()
        card += [f"- config_name: {name}", "  data_files:"]
        for split, of in (("train", train), ("validation", test)):
            file = f"{name}/{split}-00000-of-00001.parquet"
            rows(package, images / of).to_parquet(str(root / file))
            card += [f"  - split: {split}", f"    path: {name}/{split}-*"]
    (root / "README.md").write_text("\n".join([*card, "---", "# A data set"]))
    return root


@pytest.mark.parametrize(("name", "counts"), [("test-first", (18, 33)), ("train-first", (33, 18))])
def test_a_configuration_and_its_splits_are_chosen_by_name(hub, tmp_path, name, counts):
    data = tables(hub, tmp_path, source={"name": name, "test": "validation"})
    assert (len(data.splits.train), len(data.splits.test)) == counts


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "several configurations .* null: there are test-first, train-first; set data.source"),
        ({"name": "train-frist"}, "no configuration train-frist: .* data.source.name=train-first"),
        ({"name": "train-first"}, "no split test: there are train, validation"),
        ({"name": "train-first", "revision": "1a2b"}, "set data.source.revision=null"),
    ],
)
def test_another_configuration_or_split_is_refused(hub, tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        tables(hub, tmp_path, source=source)


def test_a_saved_data_set_has_no_configuration(saved, tmp_path):
    with pytest.raises(ValueError, match="name is x, .*saved: set data.source.name=null"):
        tables(saved / "saved", tmp_path, source={"name": "x"})


def test_a_name_on_the_hub_is_loaded_with_its_configuration_and_revision(
    package, hub, tmp_path, monkeypatch
):
    load, given = package.load_dataset, []

    def load_dataset(dataset, **settings):
        given.append((dataset, settings["name"], settings["revision"]))
        # As if the hub had sent it.
        return load(str(hub), **settings)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    chosen = {"name": "train-first", "revision": "1a2b", "test": "validation"}
    data = tables("somebody/insects", tmp_path, source=chosen)
    assert len(data.splits.train) == 33
    assert set(given) == {("somebody/insects", "train-first", "1a2b")}


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_remedy(package, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = r"^the data set somebody/insects is no folder here, and the hub cannot be reached \("
    with pytest.raises(ValueError, match=message) as refused:
        tables("somebody/insects", tmp_path)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("and set data.source.dataset to that folder")


def test_what_is_no_data_set_is_refused(package, images, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="the data set .*no cannot be loaded"):
        tables(tmp_path / "no", tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code/code.py").write_text("raise SystemExit")
    with pytest.raises(ValueError, match="the data set .*code cannot be loaded"):
        tables(tmp_path / "code", tmp_path)


def test_a_split_of_test_images_is_enough(package, images, tmp_path):
    rows(package, images / "test").save_to_disk(str(tmp_path / "data"))
    data = tables(tmp_path / "data", tmp_path, source={"train": None, "test": "train"})
    assert (len(data.splits.train), len(data.splits.test)) == (0, 18)
    larger = data.source.with_size(16, None).test_images(torch.tensor([3, 0]))
    assert larger.images.shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "needs the package datasets .*: pip install 'cwx.huggingface.'"),
        (SimpleNamespace(__version__="3.6.0"), "needs datasets 4 or newer"),
    ],
)
def test_a_missing_or_old_package_is_refused(tmp_path, monkeypatch, module, message):
    monkeypatch.setitem(sys.modules, "datasets", module)
    with pytest.raises(ValueError, match=message):
        tables(tmp_path, tmp_path)
