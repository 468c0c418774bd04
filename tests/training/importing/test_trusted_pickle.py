"""Weights of a pickled network that the user trusts; its code runs in a process of its own."""

import json
import re
import sys

import pytest
import torch
from support.weight_files import timm_folder
from torch import nn

from cwx.training.importing import trusted_pickle
from cwx.training.importing.pickled_network import RESULT, STATE, unpickle
from cwx.training.importing.trusted_pickle import trusted_state
from cwx.training.importing.weights_file import read_weights

SOURCE = """
import os, socket
from torch import nn

class Net(nn.Linear):
    def __setstate__(self, state):
        super().__setstate__(state)
        try:
            socket.create_connection(("127.0.0.1", PORT), timeout=5).close()
            seen = ["connected"]
        except OSError:
            seen = []
        with open(MARK, "w") as file:
            file.write(repr([seen, sorted(os.environ)]))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module with a network, which this process forgets after it has saved one."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    text = SOURCE.replace("PORT", "9").replace("MARK", repr(str(tmp_path / "mark")))
    (tmp_path / "networks_of_author.py").write_text(text)
    sys.path.insert(0, str(tmp_path))
    yield "networks_of_author"
    sys.modules.pop("networks_of_author", None)


@pytest.fixture
def file(tmp_path, module, monkeypatch):
    __import__(module)
    torch.manual_seed(0)
    network = sys.modules[module].Net(3, 4)
    (tmp_path / "model").mkdir()
    torch.save({"model": network, "num_classes": 4}, tmp_path / "model" / "net.pt")
    del sys.modules[module]
    sys.path.remove(str(tmp_path))
    return tmp_path / "model" / "net.pt"


def test_the_state_of_a_pickled_network_comes_back_from_a_process(file, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    state = trusted_state(file, tmp_path / "out", tmp_path / "networks_of_author.py")
    weights = read_weights(state)
    torch.manual_seed(0)
    expected = nn.Linear(3, 4).state_dict()
    assert all(torch.equal(weights.tensors[name], expected[name]) for name in expected)
    assert weights.tensors.keys() == expected.keys()
    assert weights.words == {"num_classes": 4, "architecture": "networks_of_author.Net"}
    connected, environment = eval((tmp_path / "mark").read_text())
    assert not connected
    assert "WANDB_API_KEY" not in environment
    assert "networks_of_author" not in sys.modules


def test_a_whole_network_is_refused_without_the_flag(file, tmp_path):
    with pytest.raises(ValueError, match=r"networks_of_author\.Net.*--trust-pickle") as refused:
        read_weights(file)
    assert "is a whole pickled network" in str(refused.value)
    assert not (tmp_path / "mark").exists()


def test_classes_without_a_source_are_named(file, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    state, description = unpickle(file, file.parent)
    assert (state, description) == ({}, {"missing": ["networks_of_author.Net"]})
    assert not (tmp_path / "mark").exists()


def test_a_class_of_a_script_is_found_in_a_module_beside_the_file(tmp_path, module, monkeypatch):
    script = sys.modules["__main__"]
    monkeypatch.setattr(script, "Scripted", type("Scripted", (nn.Linear,), {}), raising=False)
    script.Scripted.__module__ = "__main__"
    torch.save(script.Scripted(2, 3), tmp_path / "net.pt")
    (tmp_path / "own_script.py").write_text(
        "from torch import nn\nclass Scripted(nn.Linear): ...\n"
    )
    state, description = unpickle(tmp_path / "net.pt", tmp_path)
    assert description["class"] == "own_script.Scripted"
    assert {name: tuple(t.shape) for name, t in state.items()} == {"weight": (3, 2), "bias": (3,)}
    sys.modules.pop("own_script")


RESULTS = {
    "none": (None, None, "ended without a result .exit status 7."),
    "no JSON": ("{", None, "ended without a result"),
    "missing": (
        {"missing": ["models.Net", "a\n\x1b[2J"]}, None,
        r"cannot be imported: models.Net, a\\n\\x1b\[2J; they are looked for in .* .--import-path",
    ),
    "an error": ({"error": "KeyError 'a'\nb"}, None, "the code of .* failed: KeyError 'a'$"),
    "other contents": ({"refused": "it holds a list"}, None, "^it holds a list$"),
    "no weights": ({"class": "a.B"}, None, "holds no network with weights"),
    "another state": ({"class": "a.B"}, b"x" * 100, "the state .* is a text, not weights"),
    "a pickle": ({"class": "a.B"}, [3], "holds no network with weights"),
}  # fmt: skip


@pytest.mark.parametrize("case", RESULTS)
def test_what_the_process_leaves_is_not_trusted(tmp_path, monkeypatch, case):
    result, state, message = RESULTS[case]

    def run(file, results, modules, seconds):
        if result is not None:
            text = result if isinstance(result, str) else json.dumps(result)
            (results / RESULT).write_text(text)
        if isinstance(state, bytes):
            (results / STATE).write_bytes(state)
        elif state:
            torch.save(state, results / STATE)
        return 7

    monkeypatch.setattr(trusted_pickle, "_run", run)
    torch.save(nn.Linear(2, 2), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=message) as refused:
        trusted_state(tmp_path / "net.pt", tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def run_here(file, results, modules, seconds):
    """What the process does, in this one."""
    state, description = unpickle(file, modules)
    torch.save(state, results / STATE)
    (results / RESULT).write_text(json.dumps(description))
    return 0


def test_the_words_beside_the_file_are_kept(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    timm_folder(nn.Linear(2, 3), folder)
    (folder / "model.safetensors").unlink()
    torch.save(nn.Linear(2, 3), folder / "model.pt")
    monkeypatch.setattr(sys, "path", [*sys.path])

    monkeypatch.setattr(trusted_pickle, "_run", run_here)
    words = read_weights(trusted_state(folder, tmp_path / "out")).words
    assert words["architecture"] == "resnet18"
    assert words["classes"] == ("ant", "bee", "cat")


def test_files_of_one_name_are_kept_apart(tmp_path, monkeypatch):
    """Also a file that changes, while a study still reads its earlier weights."""

    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(trusted_pickle, "_run", run_here)
    kept = {}
    for name in ("id-0", "id-1", "id-0"):
        network = nn.Linear(2, 2)
        (tmp_path / name).mkdir(exist_ok=True)
        torch.save(network, tmp_path / name / "model.pt")
        state = trusted_state(tmp_path / name / "model.pt", tmp_path / "out")
        assert state == trusted_state(tmp_path / name / "model.pt", tmp_path / "out")
        kept[state] = network.weight
    assert len(kept) == 3
    assert all(torch.equal(read_weights(f).tensors["weight"], w) for f, w in kept.items())


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=re.escape("cannot be read (No such file")):
        trusted_state(tmp_path / "none.pt", tmp_path)
