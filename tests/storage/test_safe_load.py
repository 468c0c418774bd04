"""Files of weights: which are read, and what the refusal of the others says they are."""

import argparse
import functools
import gzip
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cwx.storage.safe_load import load_tensors

W = torch.arange(6.0).view(3, 2)
ARGUMENTS = argparse.Namespace(lr=0.1, layers=[2, 3], augment={"crop": 4})
BESIDE = {
    "numbers of NumPy": {"acc": np.float64(0.5), "best": np.float32(1), "i": np.int64(2)},
    "a truth value of NumPy": {"is_best": np.bool_(True)},
    "arrays of NumPy": {"a": np.arange(3), "b": np.arange(3.0)},
    "arguments": {"args": ARGUMENTS},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", BESIDE)
def test_weights_are_read_beside_harmless_values(tmp_path, case, zipped):
    path = tmp_path / "net.pt"
    torch.save({"w": W, **BESIDE[case]}, path, _use_new_zipfile_serialization=zipped)
    value = load_tensors(path, "checkpoint", "a state_dict")
    assert torch.equal(value.pop("w"), W)
    for name, expected in BESIDE[case].items():
        assert type(value[name]) is type(expected)
        assert np.all(value[name] == expected)


def archive(*names, compression=zipfile.ZIP_STORED):
    def write(path):
        with zipfile.ZipFile(path, "w", compression) as file:
            for name in names:
                file.writestr(name, b"x")

    return write


def compressed(path):
    torch.save({"w": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in contents.items():
            file.writestr(name, data)


def of_bytes(data):
    return lambda path: path.write_bytes(data)


def of_torch(value, **settings):
    return lambda path: torch.save(value, path, **settings)


def as_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def as_arrays(path):
    with path.open("wb") as file:
        np.savez(file, w=np.zeros(3))


PARTIAL = {"w": W, "optimizer": functools.partial(torch.optim.Adam, lr=1)}
KINDS = {
    "TorchScript": (
        lambda path: torch.jit.script(nn.Linear(2, 3)).save(str(path)),
        "is a TorchScript program .*: save the state_dict of the original network",
    ),
    "torch.export": (
        archive("net/archive_format", "net/models/model.json"),
        "is a program of torch.export, .*: save the state_dict",
    ),
    "a network": (
        of_torch(nn.Sequential(nn.Linear(2, 3), nn.ReLU())),
        r"not plain tensors: reading it would run code of .*torch\.nn\.modules\.\w+\.\w+",
    ),
    "a partial function": (of_torch(PARTIAL), r"run code of functools\.partial, torch\.optim\."),
    "the older format": (
        of_torch(PARTIAL, _use_new_zipfile_serialization=False),
        r"run code of functools\.partial, torch\.optim\.",
    ),
    "a path": (of_torch({"w": W, "file": Path("x")}), r"run code of pathlib\.[\w.]*Path"),
    "a pickle": (
        of_bytes(pickle.dumps({"network": nn.Linear(2, 2)})),
        r"run code of .*torch\.nn\.modules\.linear\.Linear",
    ),
    "an array": (as_array, "is an array of NumPy; give a state_dict"),
    "arrays": (as_arrays, "is an archive of NumPy arrays; give"),
    "HDF5": (of_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "is an HDF5 file, such as Keras writes"),
    "GGUF": (of_bytes(b"GGUF" + bytes(100)), "is a GGUF file"),
    "gzip": (of_bytes(gzip.compress(b"x" * 100)), "is a gzip archive: unpack it"),
    "a page": (of_bytes(b"<!DOCTYPE html><p>404"), "is a page of HTML, as a failed download"),
    "Git LFS": (
        of_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "is a pointer of Git LFS, not the file: run git lfs pull",
    ),
    "a zip": (archive("net.pt", "readme.txt"), "is a zip archive that torch.save did not write"),
    "compressed": (compressed, "is a compressed archive, which torch.save does not write"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_refused_as_what_it_is(tmp_path, kind):
    write, message = KINDS[kind]
    path = tmp_path / "net.pt"
    write(path)
    with pytest.raises(ValueError, match=message) as refused:
        load_tensors(path, "checkpoint", "a state_dict")
    text = str(refused.value)
    assert "damaged" not in text
    assert "truncated" not in text
    assert str(path) in text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["net.pt", "net.bin", "net.safetensors"])
def test_safetensors_are_known_by_their_bytes(tmp_path, name):
    save_file({"w": W}, tmp_path / name)
    assert torch.equal(load_tensors(tmp_path / name, "checkpoint", "a state_dict")["w"], W)


def test_a_file_that_expands_its_tensors_is_refused(tmp_path):
    torch.save({"w": torch.zeros(1).expand(10**9)}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="would take 4,000,000,[0-9]+ bytes: it repeats or"):
        load_tensors(tmp_path / "net.pt", "checkpoint", "a state_dict")
