import os
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torchvision import datasets

from cwx.cli.config.groups import configuration_folder
from cwx.data.datasets.torchvision import SVHN, Torchvision
from cwx.data.splits import synsets_by_index


class Published:
    """The interface of torchvision's CIFAR-10."""

    classes = ("a", "b")

    def __init__(self, root, train, download):
        if not (Path(root) / "here").exists():
            raise RuntimeError("Dataset not found")
        self.data = np.full((4, 5, 6, 3), 9, np.uint8)
        self.targets = [0, 1, 0, 1]


def published(root, *, download=False, synsets=None):
    return Torchvision(dataset=Published, root=str(root), download=download, synsets=synsets)


def test_torchvision_layout_becomes_channels_first(tmp_path):
    (tmp_path / "here").touch()
    source = published(tmp_path)
    source.prepare()
    splits = source.load()
    assert splits.train.images.shape == (4, 3, 5, 6)
    assert splits.classes == ("a", "b")
    assert splits.synsets is None


def test_torchvision_sets_may_have_synsets(tmp_path):
    (tmp_path / "here").touch()
    synsets = {"b": "n02084071", "a": "n02121620"}
    assert published(tmp_path, synsets=synsets).load().synsets == ("n02121620", "n02084071")
    with pytest.raises(ValueError, match="gives no synset to 'b'"):
        published(tmp_path, synsets={"a": "n02121620"}).load()


# As in the file of names of CIFAR-10.
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_each_class_of_cifar10_has_a_synset_of_its_own():
    source = OmegaConf.load(configuration_folder() / "data/cifar10.yaml").source
    synsets = synsets_by_index(source.synsets, CIFAR10)
    assert len(set(synsets)) == 10
    assert dict(zip(CIFAR10, synsets, strict=True))["dog"] == "n02084071"


@pytest.mark.parametrize(
    ("dataset", "file"),
    [
        (datasets.CIFAR10, "cifar-10-batches-py/data_batch_1"),
        (datasets.CIFAR10, "cifar-10-python.tar.gz"),
        (datasets.FashionMNIST, "FashionMNIST/raw/t10k-labels-idx1-ubyte"),
    ],
)
@pytest.mark.parametrize("download", [True, False])
def test_a_named_pipe_in_place_of_a_file_is_refused_at_once(tmp_path, dataset, file, download):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / file)
    source = Torchvision(dataset=dataset, root=str(tmp_path), download=download, synsets=None)
    with pytest.raises(ValueError, match=f"{Path(file).name} cannot be read .a named pipe"):
        source.prepare() if download else source.load()


def test_a_named_pipe_in_place_of_svhn_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "train_32x32.mat")
    with pytest.raises(ValueError, match=r"train_32x32\.mat cannot be read .a named pipe"):
        SVHN(root=str(tmp_path), download=False).load()


def test_a_missing_data_set_is_an_error(tmp_path):
    source = published(tmp_path, download=True)
    with pytest.raises(ValueError, match="could not be fetched"):
        source.prepare()


def write_matlab(folder, split, labels):
    """A file in the published format: pixels [H, W, C, n], and label 10 for the digit 0."""
    from scipy.io import savemat

    pixels = np.zeros((32, 32, 3, len(labels)), np.uint8)
    pixels[:, :, 1] = np.arange(len(labels))
    pixels[0, 5, 2] = 77
    savemat(folder / f"{split}_32x32.mat", {"X": pixels, "y": np.array(labels)[:, None]})


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """Small files instead of the published ones; their checksums are not checked."""
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda _: True)
    write_matlab(tmp_path, "train", [1, 10, 9])
    write_matlab(tmp_path, "test", [10, 2])
    return tmp_path


def test_svhn_is_read_from_the_published_files(svhn):
    splits = SVHN(root=str(svhn), download=False).load()
    assert splits.train.images.shape == (3, 3, 32, 32)
    assert splits.train.images[:, 1, 9, 9].tolist() == [0, 1, 2]
    # Row 0, column 5.
    assert splits.train.images[0, 2].nonzero().tolist() == [[0, 5]]
    assert splits.train.labels.tolist() == [1, 0, 9]
    assert splits.test.labels.tolist() == [0, 2]
    assert splits.train.labels.dtype == torch.int64
    assert splits.classes == tuple("0123456789")


def test_svhn_downloads_both_splits(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(datasets, "SVHN", lambda **arguments: calls.append(arguments))
    SVHN(root=str(tmp_path), download=True).prepare()
    SVHN(root=str(tmp_path), download=False).prepare()
    expected = [{"root": tmp_path, "split": s, "download": True} for s in ("train", "test")]
    assert calls == expected


def test_the_error_for_missing_svhn_files_gives_their_url(svhn, monkeypatch):
    monkeypatch.undo()
    place = r"place http://ufldl\.stanford\.edu/housenumbers/train_32x32\.mat there"
    with pytest.raises(ValueError, match=f"train split is missing or damaged in {svhn} .*{place}"):
        SVHN(root=str(svhn), download=False).load()
