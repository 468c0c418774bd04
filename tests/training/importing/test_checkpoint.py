import json
import logging
import math
import pickle
import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.pictures import write_image
from support.studies import chosen_experts
from torch import nn

from cwx.cli import resolvers
from cwx.cli.config.compose import compose_checked
from cwx.cli.config.groups import configuration_folder
from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.study.results import Results
from cwx.training.experts import ImportedExperts
from cwx.training.importing.checkpoint import import_checkpoint
from cwx.training.subject import Subject


def network(inputs=2):
    return nn.Sequential(nn.Linear(inputs, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.fixture
def store(tmp_path):
    return TrajectoryStore(tmp_path / "store")


@pytest.fixture
def state():
    """Of a network that has been trained a little, every tensor different."""
    torch.manual_seed(0)
    made = network()
    made(torch.randn(8, 2))
    return made.state_dict()


def saved(folder, value, name="net.pt", **settings) -> Path:
    torch.save(value, folder / name, **settings)
    return folder / name


def prefixed(prefix):
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPED = {
    "plain": dict,
    "parameters": lambda state: {
        n: nn.Parameter(t, t.is_floating_point()) for n, t in state.items()
    },
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "lr": 0.1},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer": {"state": {}}},
    "model": lambda state: {"model": state, "args": None},
    "net": lambda state: {"net": state, "acc": 93.0},
    "deeper": lambda state: {"model": {"state_dict": state}},
    "DataParallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "compiled under DDP": prefixed("module._orig_mod."),
    "a LightningModule": lambda state: {"state_dict": prefixed("model.")(state)},
    "another order": lambda state: dict(reversed(state.items())),
    "views": lambda state: {n: t[None].expand(2, *t.shape)[1] for n, t in state.items()},
}


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[n], expected[n]) and found[n].dtype == expected[n].dtype for n in found
    )


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", WRAPPED)
def test_the_imported_state_equals_the_saved_state(tmp_path, store, state, kind, zipped):
    path = saved(tmp_path, WRAPPED[kind](state), _use_new_zipfile_serialization=zipped)
    found = import_checkpoint(str(path), network(), store)
    assert (found.recorded_epochs, found.epochs) == ((0,), 0)
    assert math.isnan(found.accuracy(0))
    assert same(found.state(0), state)
    loaded = network()
    found.check(loaded)
    found.load_into(loaded, 0)
    assert same(loaded.state_dict(), state)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors_are_read(tmp_path, store, state, prefix):
    save_file(prefixed(prefix)(state), tmp_path / "net.safetensors")
    found = import_checkpoint(str(tmp_path / "net.safetensors"), network(), store)
    assert same(found.state(0), state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_converted_to_the_networks_dtype(tmp_path, store, state, dtype):
    narrow = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
    found = import_checkpoint(str(saved(tmp_path, narrow)), network(), store)
    assert same(found.state(0), {n: narrow[n].to(t.dtype) for n, t in state.items()})


def test_a_missing_batch_norm_counter_is_filled_in(tmp_path, store, state):
    older = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    found = import_checkpoint(str(saved(tmp_path, older)), network(), store)
    assert same(found.state(0), {**state, "1.num_batches_tracked": torch.tensor(0)})


@given(st.lists(st.sampled_from(["module.", "_orig_mod.", "model.", "net."]), max_size=4))
def test_prefixes_in_the_names_of_the_network_itself_are_kept(tmp_path_factory, prefixes):
    """Whatever prefixes are its own, and whatever is put before them."""
    folder = tmp_path_factory.mktemp("any")
    inner = nn.Linear(2, 2)
    for name in prefixes:
        outer = nn.Module()
        outer.add_module(name.rstrip("."), inner)
        inner = outer
    path = saved(folder, prefixed("module._orig_mod.")(inner.state_dict()))
    found = import_checkpoint(str(path), inner, TrajectoryStore(folder / "store"))
    assert same(found.state(0), inner.state_dict())


def test_a_checkpoint_is_imported_once_whatever_its_path(tmp_path, store, state):
    path = saved(tmp_path, state)
    first = import_checkpoint(str(path), network(), store)
    again = import_checkpoint(str(path.rename(tmp_path / "moved.pth")), network(), store)
    assert first.path == again.path == store.path(first.identity)
    other = import_checkpoint(
        str(saved(tmp_path, {n: t + 1 for n, t in state.items()})), network(), store
    )
    assert other.path != first.path


ONE = torch.ones(1)
BESIDE = {
    "a loss": (
        lambda s: {**prefixed("model.")(s), "criterion.weight": torch.ones(2)},
        "left out beside the network: criterion.weight = [1.0, 1.0]",
    ),
    "a normalisation": (
        lambda s: {**prefixed("1.")(s), "normalizer.mean": ONE / 2, "normalizer.std": ONE / 4},
        "left out beside the network: normalizer.mean = [0.5], normalizer.std = [0.25]",
    ),
    "a normalisation beside names without a prefix": (
        lambda s: {**s, "normalizer.mean": ONE / 2},
        "left out beside the network: normalizer.mean = [0.5]",
    ),
    "the same under module.": (
        lambda s: {**s, **prefixed("module.")(s)},
        "left out beside the network: module.0 (2), module.1",
    ),
    "an average of weights": (
        lambda s: {**s, **prefixed("ema.")({n: t + 1 for n, t in s.items()})},
        "holds other weights of this network under 'ema.': those under '' are used",
    ),
    "an optimizer": (
        lambda s: {"state_dict": s, "optimizer": {"state": {}}, "epoch": 3},
        "left out beside the weights: optimizer, epoch",
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_what_lies_beside_a_whole_network_is_left_out_and_named(
    tmp_path, store, state, case, caplog
):
    caplog.set_level(logging.INFO)
    content, message = BESIDE[case]
    imported = import_checkpoint(str(saved(tmp_path, content(state))), network(), store)
    assert same(imported.state(0), state)
    assert message in caplog.text


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def as_pickle(path, value):
    with path.open("wb") as file:
        pickle.dump(value, file)


WRITERS = {
    "zipped": lambda path, value: torch.save(value, path),
    "legacy": lambda path, value: torch.save(value, path, _use_new_zipfile_serialization=False),
    "pickle": as_pickle,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, store, state, writer):
    path, mark = tmp_path / "net.pt", tmp_path / "mark"
    WRITERS[writer](path, {**state, "hook": Hostile(mark)})
    with pytest.raises(ValueError, match=f"{path} is .*not plain tensors.*no code in it was run"):
        import_checkpoint(str(path), network(), store)
    assert not mark.exists()
    assert not store.root.exists()
    pickle.loads(pickle.dumps(Hostile(mark)))
    assert mark.exists()


@pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_a_truncated_file_is_refused(tmp_path, store, state, name, fraction):
    path = tmp_path / name
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(ValueError, match=f"the checkpoint {path} is truncated, damaged or"):
        import_checkpoint(str(path), network(), store)
    assert not store.root.exists()


def itself():
    value = {}
    value["model"] = value
    return value


W = torch.zeros(3, 2)
OTHER = "is of another network: "
REFUSED = {
    "a list": ([W], "holds a list: a checkpoint is a state_dict, or holds one as state_dict, "),
    "a tensor": (W, "holds a tensor of torch.float32 (torch.strided, cpu): a checkpoint"),
    "nothing": ({}, "holds a dict: a checkpoint is"),
    "itself": (itself(), "holds no weights, only model: a checkpoint is"),
    "a number": ({"0.weight": 1.0}, "holds no weights, only 0.weight: a checkpoint is"),
    "numbers as names": ({3: W}, "holds a tensor of torch.float32 (torch.strided, cpu) as 3, not"),
    "an optimiser": (
        {"state": {0: {"step": W}}, "param_groups": [{"lr": 0.1}]},
        "holds no weights, only state, param_groups (the state of an optimiser): a checkpoint",
    ),
    "another network under another key": (
        {"layers": {"0.weight": W}},
        f"{OTHER}missing 0.bias, 1.bias, 1.running_mean and 4 more",
    ),
    "meta": ({"0.weight": W.to("meta")}, "(torch.strided, meta) as '0.weight', not"),
    "too few": (
        lambda s: {n: t for n, t in s.items() if not n.startswith("1.")},
        f"{OTHER}missing 1.bias, 1.running_mean, 1.running_var and 1 more; choose the network",
    ),
    "too many": (lambda s: {**s, "fc.bias": W}, f"{OTHER}unexpected fc.bias; choose"),
    "shapes": (
        lambda s: {**s, "0.weight": W.T},
        f"{OTHER}different shape 0.weight (2, 3) for (3, 2); choose",
    ),
    "metrics": (
        lambda s: {**s, "0.weight": s["0.weight"].int()},
        f"{OTHER}different kind of dtype 0.weight (torch.int32); choose",
    ),
    "all at once": (
        lambda s: {**{n: t for n, t in s.items() if n != "2.bias"}, "0.weight": W.T, "fc": W},
        f"{OTHER}missing 2.bias; unexpected fc; different shape 0.weight",
    ),
    "not finite": (
        lambda s: {**s, "2.bias": s["2.bias"] / 0},
        "is not finite in torch.float32: use the weights of an earlier epoch",
    ),
    "too large": (
        lambda s: {**s, "2.bias": s["2.bias"].double() * 1e300},
        "is not finite in torch.float32",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_checkpoint_is_refused(tmp_path, store, state, case):
    value, message = REFUSED[case]
    path = saved(tmp_path, value(state) if callable(value) else value)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        import_checkpoint(str(path), network(), store)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(store.root.rglob("complete.json"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.pt", "the checkpoint none.pt cannot be read .*name an existing file"),
        (".", "the checkpoint . is a folder without a file of weights .*: name a file"),
        ("ResNet50_Weights.IMAGENET1K_V9", "no file ResNet50_Weights.* torchvision has no weights"),
        ("ResNet51_Weights.DEFAULT", "torchvision has no weights of that name: give a path, or"),
    ],
)
def test_a_missing_file_or_name_is_refused(store, source, message):
    with pytest.raises(ValueError, match=message):
        import_checkpoint(source, network(), store)


NAME = "SqueezeNet1_0_Weights.IMAGENET1K_V1"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torchvision's, empty, and without a way out."""

    def refuse(url, *given, **settings):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_published_weights_are_taken_from_torchvisions_cache(cache, store):
    torch.manual_seed(0)
    published = torchvision.models.squeezenet1_0(num_classes=10)
    cache.mkdir(parents=True)
    saved(cache, published.state_dict(), "squeezenet1_0-b66bff10.pth")
    found = import_checkpoint(NAME, torchvision.models.squeezenet1_0(num_classes=10), store)
    assert same(found.state(0), published.state_dict())


def test_a_failed_download_is_refused(cache, store):
    message = f"squeezenet1_0-b66bff10.pth could not be downloaded .* save it as {cache}"
    with pytest.raises(ValueError, match=message):
        import_checkpoint(NAME, network(), store)


@pytest.fixture
def squeezenet(tmp_path):
    """Its weights on disk, of three classes of which images of two are there."""
    torch.manual_seed(0)
    made = torchvision.models.squeezenet1_0(num_classes=3).eval()
    # As it begins, every logit of it is 0.
    nn.init.normal_(made.classifier[1].weight)
    nn.init.ones_(made.classifier[1].bias)
    saved(tmp_path, {"state_dict": prefixed("module.")(made.state_dict())}, "foreign.pth")
    for value, name in ((0, "ant"), (250, "dog")):
        for i in range(3):
            write_image(tmp_path / "images" / name / f"{i}.png", size=(40, 34), value=value + i)
    (tmp_path / "names.txt").write_text("dog\ncat\nant\n")
    return made


def test_the_experts_of_checkpoints_need_one():
    message = (
        "experts=checkpoint explains imported networks, but experts.checkpoints is empty: name a "
        "file (experts.checkpoints=[<file>])"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        chosen_experts(ImportedExperts, checkpoints=[])


def settings(folder):
    return [
        "data=test_folder",
        f"data.source.root={folder}/images",
        f"data.source.classes={folder}/names.txt",
        "data.source.size=32",
        "data.mean=[0.485,0.456,0.406]",
        "data.std=[0.229,0.224,0.225]",
        "network=external",
        "network.build._target_=torchvision.models.squeezenet1_0",
        "+network.build.num_classes=3",
        f"experts.checkpoints=[{folder}/foreign.pth]",
        "experts.held_out=[]",
        "experts.evaluation_seeds=[]",
        "method=[]",
        "evaluation=[accuracy]",
        "logger=[]",
        f"store={folder}/store",
    ]


def composed(folder, *overrides):
    """The study of a command line and its configuration."""
    resolvers.register_resolvers()
    configuration = compose_checked(
        configuration_folder(),
        [*settings(folder), *overrides],
        multirun=False,
        extra=None,
        resumed=None,
    )
    return instantiate(configuration, _convert_="all"), configuration


def ran(folder, *overrides):
    study, configuration = composed(folder, *overrides)
    study.run(Results(folder / "run"), configuration, experiment="x", resumed=False)
    return study


def test_an_imported_network_is_evaluated_without_training_images(squeezenet, tmp_path):
    study = ran(tmp_path)
    (path,) = (tmp_path / "store").iterdir()
    trajectory = Trajectory(path)
    subject = Subject(
        data=study.data,
        factory=study.network,
        trajectories=[trajectory],
        held_out=[],
        evaluation_networks={},
    )
    ((images, labels, _),) = study.data.test_batches()
    with torch.no_grad():
        expected = squeezenet(images)
        assert torch.equal(subject.trained_network(trajectory)(images), expected)
    assert len(expected.unique()) > 3
    assert labels.tolist() == [0, 0, 0, 2, 2, 2]
    right = (expected.argmax(1) == labels).double().mean().item()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics == {"corruption/effective_rate": 0, "accuracy/expert/clean": right}


MISFITS = {
    "data.source.channels=1 data.mean=0.5 data.std=0.5": (
        r"network \(SqueezeNet for images of 3 channels\) does not take the data's images of 1 "
        "channels and 32x32 pixels"
    ),
    "data.source.size=4": "network .* does not take the data's images of 3 channels and 4x4 pixels",
    "data.source.classes=null": r"outputs of shape \(3, 3\) for 3 images, but the data have 2",
    "+network.build.colours=3": "squeezenet1_0 rejects its arguments .*'colours'",
    "experts.held_out=[1]": "no training images, but experts.held_out need training",
    "experts.checkpoints=[nowhere.pt]": "the checkpoint nowhere.pt cannot be read",
    "network.build.num_classes=3 network.build._target_=torchvision.models.squeezenet1_1": (
        "foreign.pth is of another network: .*different shape features.0.bias .96,. for "
        "..*choose the network that was trained"
    ),
}


@pytest.mark.parametrize("overrides", MISFITS)
def test_settings_that_do_not_fit_an_imported_network_are_refused(squeezenet, tmp_path, overrides):
    with pytest.raises(ValueError, match=MISFITS[overrides]) as caught:
        ran(tmp_path, *overrides.split())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("store/*/complete.json"))
