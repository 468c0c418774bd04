"""An intact file is never called damaged, and a hostile one is refused at once."""

import collections
import datetime
import io
import pickle
import random
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.weight_files import exported, pickled_network, torchscript
from torch import nn

from cwx.storage.refusals import CodeNeededError
from cwx.storage.safe_load import load_tensors

W = torch.arange(6.0).view(3, 2)
READ = {
    "a set": {1, 2},
    "nothing": None,
    "a number": 3,
    "a text": "x",
    "a tuple": (W, 3),
    "an array": np.zeros(3),
    "an array of texts": np.array(["a", "b"]),
    "an array of objects": np.array([1, "x", None], dtype=object),
    "an optimiser": torch.optim.Adam([W]).state_dict(),
    "bfloat16": {"w": W.bfloat16()},
    "complex": {"w": W + 0j},
    "random states": {
        "torch": torch.get_rng_state(),
        "numpy": np.random.RandomState(0).get_state(),
    },
    "a size": W.shape,
    "bytes": b"abc",
    "a large integer": 10**50,
    "a counter": collections.Counter("aab"),
    "parameters": [nn.Parameter(W)],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", READ)
def test_plain_values_are_read(tmp_path, case, zipped):
    torch.save(READ[case], tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert type(load_tensors(tmp_path / "x.pt", "checkpoint", "F")) is type(READ[case])


def test_tensors_of_another_device_are_read_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:3")
    torch.save({"w": W}, tmp_path / "x.pt")
    assert torch.equal(load_tensors(tmp_path / "x.pt", "checkpoint", "F")["w"], W)


@pytest.mark.parametrize("name", ["x.safetensors", "x.onnx", "x.pkl", "x"])
def test_the_name_of_a_file_has_no_meaning(tmp_path, name):
    torch.save({"w": W}, tmp_path / name)
    assert torch.equal(load_tensors(tmp_path / name, "checkpoint", "F")["w"], W)


def test_the_name_of_the_folder_in_an_archive_has_no_meaning(tmp_path):
    torch.save({"w": W}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "y", "w") as new:
        for entry in old.infolist():
            name = "odd name/" + entry.filename.partition("/")[2]
            new.writestr(name, old.read(entry))
    assert torch.equal(load_tensors(tmp_path / "y", "checkpoint", "F")["w"], W)


UNREAD = {
    "a frozen set": ({"w": W, "s": frozenset({1})}, "code of builtins.frozenset"),
    "a default dictionary": (collections.defaultdict(list), "code of collections.defaultdict"),
    "a date": (datetime.date(2020, 1, 1), "code of datetime.date"),
    "a masked array": (np.ma.zeros(3), r"code of numpy.ma"),
    "a generator": (np.random.default_rng(0), r"code of numpy.random"),
    "a network": (nn.Linear(2, 2), "is a whole pickled network, .*code of torch.nn.*Linear"),
    "a network beside numbers": (
        {"model": nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), "epoch": 3},
        "is a whole pickled network, .*code of torch.nn.*Sequential, .*ReLU, .*Linear",
    ),
    "nested": ("nested", "torch does not read torch._utils._rebuild_nested_tensor"),
    "uninitialised": (
        nn.UninitializedParameter(), "torch does not read torch.nn.parameter.Uninitialized",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", UNREAD)
def test_other_values_are_refused_by_the_classes_that_they_need(tmp_path, case, zipped):
    value, message = UNREAD[case]
    if isinstance(value, str):
        value = torch.nested.nested_tensor([W, W[:1]])
    torch.save(value, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    check(tmp_path / "x.pt", message, CodeNeededError)


def check(path, message, kind=ValueError):
    started = time.monotonic()
    with pytest.raises(kind, match=message) as refused:
        load_tensors(path, "checkpoint", "FORM")
    assert time.monotonic() - started < 10
    text = str(refused.value)
    assert "damaged" not in text
    assert "truncated" not in text
    assert "\n" not in text
    assert str(path) in text


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [3, None, [1], {"a": 1}, {1}, np.zeros(2)], ids=range(6))
def test_a_plain_pickle_is_no_damaged_file(tmp_path, protocol, value):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
    check(tmp_path / "x.pkl", "not plain tensors", CodeNeededError)


@pytest.mark.parametrize("protocol", [3, 4])
def test_another_protocol_is_named(tmp_path, protocol):
    value = {"w": W, "i": np.int64(3), "b": b"x"}
    torch.save(value, tmp_path / "x.pt", pickle_protocol=protocol)
    check(tmp_path / "x.pt", f"a pickle of protocol {protocol}; no code", CodeNeededError)


@pytest.mark.filterwarnings("ignore")
def test_other_files_of_torch_are_named(tmp_path):
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    torchscript(network, tmp_path / "script.pt")
    check(tmp_path / "script.pt", "is a TorchScript program .*state_dict of the original network")
    pickled_network(network, tmp_path / "network.pt")
    check(tmp_path / "network.pt", "is a whole pickled network", CodeNeededError)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_program_of_torch_export_is_named(tmp_path):
    exported(nn.Linear(2, 3), tmp_path / "program.pt2", torch.zeros(1, 2))
    check(tmp_path / "program.pt2", "is a program of torch.export, .*state_dict of the original")


def tar_of(*names):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return data.getvalue()


OTHERS = {
    "a tar of the oldest torch": (
        tar_of("sys_info", "pickle", "tensors", "storages"), "tar format of the oldest releases",
    ),
    "a tar": (tar_of("net.pt"), "is a tar archive: unpack it"),
    "a text": (b"epoch,accuracy\n" * 50, "is a text, not weights; give FORM"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.0.0:" + bytes(200), "is a model of ONNX"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(100), "is a model of TensorFlow Lite"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is an image; give FORM"),
    "7z": (b"7z\xbc\xaf'\x1c" + bytes(100), "is a 7z archive: unpack it"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_a_file_of_another_program_is_named(tmp_path, case):
    content, message = OTHERS[case]
    (tmp_path / "x.pt").write_bytes(content)
    check(tmp_path / "x.pt", message)


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("place", ["value", "key", "argument", "array", "network"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_runs_wherever_it_lies(tmp_path, place, protocol, zipped):
    code = Hostile(tmp_path / "mark")
    network = nn.Linear(2, 2)
    network.hook = code
    value = {
        "value": {"w": W, "x": code},
        "key": {"w": W, "x": [(code, 1)]},
        "argument": __import__("argparse").Namespace(x=code),
        "array": np.array([code], dtype=object),
        "network": network,
    }[place]
    torch.save(
        value, tmp_path / "x.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped
    )
    check(tmp_path / "x.pt", "no code in it was run", CodeNeededError)
    assert not (tmp_path / "mark").exists()


GIGABYTES = 2 * 10**9


def zeros_in_an_archive(path, name, compression):
    with (
        zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive,
        archive.open(name, "w", force_zip64=True) as entry,
    ):
        # A tenth, so that the test is quick: the size is refused before anything is read.
        for _ in range(20):
            entry.write(bytes(10**7))


def sparse(path, start=b""):
    with path.open("wb") as file:
        file.write(start)
        file.truncate(GIGABYTES)


ZEROS = {
    "compressed weights": (
        lambda path: zeros_in_an_archive(path, "net/data.pkl", zipfile.ZIP_DEFLATED),
        "is a compressed archive",
    ),
    "another archive": (
        lambda path: zeros_in_an_archive(path, "zeros.bin", zipfile.ZIP_DEFLATED),
        "is a zip archive that torch.save did not write",
    ),
    "gzip": (lambda path: sparse(path, b"\x1f\x8b"), "is a gzip archive"),
    "a tar": (lambda path: sparse(path, tar_of("zeros")[:512]), "is a tar archive"),
}


@pytest.mark.parametrize("case", ZEROS)
def test_an_archive_of_zeros_is_refused_at_once(tmp_path, case):
    write, message = ZEROS[case]
    write(tmp_path / "x.pt")
    check(tmp_path / "x.pt", message)


@pytest.mark.parametrize("start", [b"", b"\x80\x02", (10**6).to_bytes(8, "little") + b"{"])
def test_gigabytes_of_zeros_are_refused_at_once(tmp_path, start):
    sparse(tmp_path / "x.pt", start)
    started = time.monotonic()
    with pytest.raises(ValueError, match="truncated, damaged or not plain tensors"):
        load_tensors(tmp_path / "x.pt", "checkpoint", "FORM")
    assert time.monotonic() - started < 10


def test_a_random_state_of_python_is_read_beside_weights(tmp_path):
    torch.save({"w": W, "python": random.getstate()}, tmp_path / "x.pt")
    assert load_tensors(tmp_path / "x.pt", "checkpoint", "F")["python"] == random.getstate()
