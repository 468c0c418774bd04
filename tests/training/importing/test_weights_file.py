"""Every form of a file of weights gives the same network, and says what the form says."""

import json
import logging

import pytest
import torch
from safetensors.torch import save_file
from support.weight_files import (
    FILES,
    FOLDERS,
    MEAN,
    NAMES,
    STD,
    attack_result,
    hugging_face_folder,
    prefixed,
    state_dict,
    timm_folder,
)
from torch import nn

from cwx.storage.trajectories import TrajectoryStore
from cwx.training.importing.checkpoint import import_checkpoint, read_checkpoint
from cwx.training.importing.weights_file import read_weights


def build():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip


@pytest.fixture
def network():
    """Of which every tensor is different from that of a new one."""
    torch.manual_seed(0)
    network = build()
    network(torch.randn(4, 3, 8, 8))
    return network.eval()


def written(form, network, folder):
    if form in FOLDERS:
        FOLDERS[form](network, folder)
        return folder
    FILES[form](network, folder / "net.pt")
    return folder / "net.pt"


@pytest.mark.parametrize("form", [*FILES, *FOLDERS])
def test_each_form_gives_the_same_outputs(tmp_path, network, form):
    path = written(form, network, tmp_path)
    loaded = build().eval()
    loaded.load_state_dict(read_checkpoint(path, loaded.state_dict()))
    images = torch.randn(5, 3, 8, 8)
    assert torch.equal(loaded(images), network(images))
    # Without a network at hand, each tensor is there under some prefix.
    tensors = read_weights(path).tensors
    for name, tensor in network.state_dict().items():
        assert any(n.endswith(name) and torch.equal(t, tensor) for n, t in tensors.items())


WORDS = {
    "to continue a training": {"model_name": "resnet18"},
    "beside arguments": {"model_name": "resnet18", "dataset": "cifar10", "num_classes": 3},
    "Lightning": {"model_name": "resnet18", "num_classes": 3},
    "with a normalisation": {
        "mean": tuple(MEAN), "std": tuple(STD), "normalization_tensors": ("mu", "sigma"),
    },
    "timm": {
        "model_name": "resnet18", "architecture": "resnet18", "num_classes": 3, "size": (32, 24),
        "channels": 3, "crop": 0.95, "interpolation": "bicubic", "classes": tuple(NAMES),
        "mean": tuple(MEAN), "std": tuple(STD),
    },
    "Hugging Face": {
        "model_name": "resnet", "architecture": "ResNetForImageClassification", "num_classes": 3,
        "channels": 3, "size": (224, 224), "crop": 0.875, "interpolation": "bicubic",
        "classes": tuple(NAMES), "mean": tuple(MEAN), "std": tuple(STD),
    },
    "BackdoorBench": {
        "model_name": "preactresnet18", "num_classes": 3, "dataset": "cifar10", "size": (32, 32),
        "channels": 3, "mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.243, 0.261),
    },
}  # fmt: skip


@pytest.mark.parametrize("form", [*FILES, *FOLDERS])
def test_the_words_are_those_of_the_file(tmp_path, network, form):
    assert read_weights(written(form, network, tmp_path)).words == WORDS.get(form, {})


REMARKS = {
    "to continue a training": "'state_dict' is used, not 'state_dict_ema'",
    "under ema": "holds only averaged weights: 'ema' is used",
    "Lightning": "a checkpoint of Lightning",
    "BackdoorBench": "an attack_result of BackdoorBench",
    "timm": "described by the config.json of timm beside it",
    "Hugging Face": "described by the config.json of Hugging Face beside it",
    "beside arguments": "left out beside the weights: args, acc",
}


@pytest.mark.parametrize("form", REMARKS)
def test_the_remarks_say_what_the_file_is_and_what_was_left_out(tmp_path, network, form):
    assert REMARKS[form] in "; ".join(read_weights(written(form, network, tmp_path)).remarks)


def test_tensors_beside_the_network_are_named(tmp_path, network, caplog):
    caplog.set_level(logging.INFO)
    read_checkpoint(written("Lightning", network, tmp_path), network.state_dict())
    assert "left out beside the network: criterion.weight" in caplog.text


@pytest.mark.parametrize(
    ("data", "mean"),
    [("gtsrb", (0.0,)), ("mnist", (0.5,)), ("tiny", (0.4802, 0.4481, 0.3975)), ("other", None)],
)
def test_the_normalisation_of_an_attack_result_is_that_of_its_data_set(
    tmp_path, network, data, mean
):
    attack_result(network, tmp_path, data=data)
    assert read_weights(tmp_path).words.get("mean") == mean
    attack_result(network, tmp_path, data=data, clean_data=None)
    assert read_weights(tmp_path / "attack_result.pt").words.get("mean") == mean


@pytest.mark.parametrize(
    ("preprocessor", "words"),
    [
        ({"do_normalize": False}, {"mean": (0.0,), "std": (1.0,)}),
        # Pixels in 0-255, and in -1 to 1.
        ({"do_rescale": False}, {"mean": tuple(m / 255 for m in MEAN)}),
        (
            {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
            {"mean": (0.5,), "std": (0.5,)},
        ),
        ({"size": {"shortest_edge": 256}, "crop_size": 224}, {"size": (224, 224), "crop": 0.875}),
        ({"size": {"height": 48, "width": 32}, "resample": 2}, {"size": (48, 32)}),
        ({"resample": 2}, {"interpolation": "bilinear"}),
    ],
)
def test_an_image_processor_is_translated(tmp_path, network, preprocessor, words):
    hugging_face_folder(network, tmp_path)
    file = tmp_path / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, **preprocessor}))
    read = read_weights(tmp_path).words
    for word, value in words.items():
        assert read[word] == (pytest.approx(value) if word in ("mean", "std") else value)


WORTHLESS = [None, True, -1, 0, 1e400, "x" * 500, "\0", [], [-1], {"a": 1}, [[3]], "a b"]


@pytest.mark.parametrize("value", WORTHLESS, ids=range(len(WORTHLESS)))
def test_words_that_are_no_plain_values_are_left_out(tmp_path, network, value):
    keys = ("model_name", "num_classes", "classes", "mean", "std", "img_size", "class_to_idx")
    torch.save({"model": network.state_dict(), **dict.fromkeys(keys, value)}, tmp_path / "net.pt")
    assert read_weights(tmp_path / "net.pt").words == {}


@pytest.mark.parametrize(
    "classes",
    [
        {"classes": NAMES},
        {"class_to_idx": {name: i for i, name in enumerate(NAMES)}},
        {"idx_to_class": dict(enumerate(NAMES))},
        {"hyper_parameters": {"class_names": tuple(NAMES)}},
    ],
)
def test_classes_are_read_in_the_order_of_the_outputs(tmp_path, network, classes):
    torch.save({"model": network.state_dict(), **classes}, tmp_path / "net.pt")
    assert read_weights(tmp_path / "net.pt").words == {"classes": tuple(NAMES)}


def test_other_classes_than_the_stated_number_are_left_out(tmp_path, network):
    torch.save({"model": network.state_dict(), "classes": NAMES, "num_classes": 4},
               tmp_path / "net.pt")  # fmt: skip
    weights = read_weights(tmp_path / "net.pt")
    assert weights.words == {"num_classes": 4}
    assert "names 3 classes, but states 4" in weights.remarks[-1]


def test_a_configuration_beside_several_files_is_of_none_of_them(tmp_path, network):
    timm_folder(network, tmp_path)
    state_dict(network, tmp_path / "other.pt")
    assert read_weights(tmp_path / "other.pt").words == {}
    assert read_weights(tmp_path / "model.safetensors").words


def two_files(network, folder):
    for name in ("a.pt", "b.pt"):
        state_dict(network, folder / name)


def in_parts(network, folder):
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        save_file(network.state_dict(), folder / name)
    (folder / "model.safetensors.index.json").write_text("{}")


def broken_configuration(network, folder):
    timm_folder(network, folder)
    (folder / "config.json").write_text("{")


BAD_FOLDERS = {
    "empty": (lambda *_: None, "is a folder without a file of weights"),
    "several files": (two_files, r"has 2 files of weights \(a.pt, b.pt\): name one of them"),
    "parts": (in_parts, "are in several parts: save them in one file"),
    "TensorFlow": (
        lambda _, folder: (folder / "tf_model.h5").touch(),
        "without a file of weights .*, but tf_model.h5 of another library",
    ),
    "no JSON": (broken_configuration, "config.json, beside the weights, cannot be read"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_folder_without_one_network_is_refused(tmp_path, network, case):
    write, message = BAD_FOLDERS[case]
    write(network, tmp_path)
    with pytest.raises(ValueError, match=message) as refused:
        read_weights(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_is_imported_like_its_file(tmp_path, network):
    timm_folder(network, tmp_path)
    store = TrajectoryStore(tmp_path / "store")
    by_folder = import_checkpoint(str(tmp_path), build(), store)
    by_file = import_checkpoint(str(tmp_path / "model.safetensors"), build(), store)
    assert by_folder.path == by_file.path


def of_adam(network):
    return torch.optim.Adam(network.parameters()).state_dict()


def quantised(_):
    return {"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}


HOLDS = {
    "an optimiser": (
        of_adam, r"holds no weights, only state, param_groups \(the state of an optimiser\)",
    ),
    "only an optimiser": (
        lambda network: {"optimizer": of_adam(network), "epoch": 3},
        "holds no weights, only optimizer, epoch",
    ),
    "a list of parameters": (lambda n: list(n.parameters()), "holds a list: a checkpoint is"),
    "None": (lambda _: None, "holds a NoneType: a checkpoint is"),
    "a set": (lambda _: {1, 2}, "holds a set: a checkpoint is"),
    "quantised": (
        quantised, r"holds quantised weights \(w\): give the state_dict of the network before",
    ),
    "sparse": (lambda _: {"w": torch.eye(3).to_sparse()}, r"dense tensor \(to_dense\(\)\)"),
    "complex": (lambda _: {"w": torch.eye(3) + 0j}, "networks of complex numbers are not read"),
    "meta": (lambda _: {"w": torch.eye(3, device="meta")}, "after its weights are loaded"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", HOLDS)
def test_a_file_without_weights_is_refused_as_what_it_holds(tmp_path, network, case):
    value, message = HOLDS[case]
    torch.save(value(network), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=message) as refused:
        read_weights(tmp_path / "net.pt")
    assert "damaged" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_network_under_two_prefixes_is_chosen_by_the_network_at_hand(tmp_path, network, caplog):
    state = network.state_dict()
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({**prefixed("teacher.", other), **prefixed("student.", state)}, tmp_path / "n.pt")
    read = read_checkpoint(tmp_path / "n.pt", state)
    assert all(torch.equal(read[name], state[name]) for name in state)
    assert "holds other weights of this network under 'teacher.'" in caplog.text
