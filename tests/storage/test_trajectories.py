import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.builders import experts, small_mlp, stages, trained, wanted
from torch import nn

from cwx.networks.mlp import MLP
from cwx.storage.recording import Recording
from cwx.storage.trajectories import Recorder, Trajectory, TrajectoryStore
from cwx.training.build import build_network
from cwx.training.callbacks.checkpoints import AtomicCheckpointIO

WHOLE = Recording()


def train(data, store, recording=WHOLE, seed=5, **settings):
    """The expert trained for 3 epochs, and how often it took a training."""
    built = []

    def build(missing):
        built.append(missing)
        seeds = [each.seed for each in missing]
        return experts(data, seeds, epochs=3, recording=recording)

    (found,) = stages(**settings).train(build, wanted(seed), store, at_once=1)
    return found, len(built)


@pytest.mark.parametrize("every", [1, 3, 100])
def test_exactly_t_plus_one_states_whatever_the_validation_interval(data, tmp_path, every):
    store = TrajectoryStore(tmp_path)
    found, _ = train(data, store, check_val_every_n_epoch=every)
    assert found.epochs == 3
    assert len(list(found.path.glob("state-*"))) == 4
    initial = build_network(small_mlp, data, seed=5).state_dict()
    assert all(torch.equal(initial[name], t) for name, t in found.state(0).items())
    assert not list(found.path.glob("*.ckpt"))


def test_states_are_not_views_of_each_other(subject):
    states = [subject.trajectories[0].state(e) for e in range(5)]
    for before, after in zip(states, states[1:], strict=False):
        assert any(not torch.equal(before[n], after[n]) for n in before)


def test_accuracy_lies_beside_each_state(subject):
    trajectory = subject.trajectories[0]
    network = subject.trained(trajectory)
    test = subject.data.splits.test
    right = network(subject.data.normalization.from_bytes(test.images)).argmax(1) == test.labels
    assert trajectory.accuracy(4) == pytest.approx(right.double().mean().item())
    assert trajectory.accuracy(4) > 0.9 > trajectory.accuracy(0)


def test_an_expert_is_trained_once(data, tmp_path):
    store = TrajectoryStore(tmp_path)
    first, built = train(data, store)
    second, again = train(data, store)
    _, other = train(data, store, seed=6)
    assert (built, again, other) == (1, 0, 1)
    assert first.path == second.path
    assert first.identity == {"seed": 5}


def test_a_cut_training_continues_to_the_same_states(data, tmp_path):
    whole, _ = train(data, TrajectoryStore(tmp_path / "whole"))

    class Power(Exception):
        pass

    def build(missing):
        module = experts(data, [5], epochs=3)
        step, module.seen = module.training_step, 0

        def training_step(batch, batch_idx):
            module.seen += 1
            if module.seen > 13:  # in the second epoch
                raise Power
            return step(batch, batch_idx)

        module.training_step = training_step
        return module

    store = TrajectoryStore(tmp_path / "cut")
    with pytest.raises(Power):
        stages().train(build, wanted(5), store, at_once=1)
    assert store.find({"seed": 5}) is None
    found, _ = train(data, store)
    for epoch in range(4):
        a, b = whole.state(epoch), found.state(epoch)
        assert all(torch.equal(a[n], b[n]) for n in a)


def test_a_training_stopped_after_its_last_checkpoint_is_complete(data, tmp_path, monkeypatch):
    class Power(Exception):
        pass

    save = AtomicCheckpointIO.save_checkpoint

    def cut(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path, storage_options)
        if checkpoint["epoch"] == 2:
            raise Power

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", cut)
    store = TrajectoryStore(tmp_path)
    with pytest.raises(Power):
        train(data, store)
    monkeypatch.undo()
    found, built = train(data, store)
    assert (found.recorded, built) == ((0, 1, 2, 3), 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("epochs", "recorded"),
    [(None, [0, 1, 2, 3]), (0, [0, 3]), (1, [0, 1, 3]), (3, [0, 1, 2, 3]), (9, [0, 1, 2, 3])],
)
def test_what_is_recorded_does_not_alter_the_training(data, tmp_path, epochs, recorded, dtype):
    whole, _ = train(data, TrajectoryStore(tmp_path / "whole"))
    recording = Recording(epochs=epochs, dtype=dtype)
    found, _ = train(data, TrajectoryStore(tmp_path / "some"), recording)
    assert json.loads((found.path / "complete.json").read_text()) == {"epochs": recorded}
    assert list(found.recorded) == recorded
    assert found.epochs == 3
    assert len(list(found.path.glob("state-*"))) == len(recorded)
    for epoch in recorded:
        exact, read = whole.state(epoch), found.state(epoch)
        assert all(torch.equal(exact[n].to(recording.dtype).float(), read[n]) for n in exact)
        assert found.accuracy(epoch) == whole.accuracy(epoch)


def test_networks_that_train_together_are_recorded_each_in_its_folder(data, tmp_path):
    store, recording = TrajectoryStore(tmp_path), Recording(epochs=0)
    found = trained(data, [7, 3], store, at_once=2, epochs=2, recording=recording)
    for trajectory, seed in zip(found, (7, 3), strict=True):
        assert trajectory.identity == {"seed": seed}
        assert trajectory.recorded == (0, 2)
        initial = build_network(small_mlp, data, seed=seed).state_dict()
        assert all(torch.equal(initial[name], t) for name, t in trajectory.state(0).items())
    assert any(not torch.equal(t, found[1].state(2)[n]) for n, t in found[0].state(2).items())


def test_an_epoch_that_was_left_out(data, tmp_path):
    found, _ = train(data, TrajectoryStore(tmp_path), Recording(epochs=1))
    remedy = r"\(0-1, 3\): choose one of these, or raise recipe.recording.epochs"
    for ask in (found.state, found.accuracy):
        with pytest.raises(ValueError, match=f"epoch 2 is not among those recorded.*{remedy}"):
            ask(2)


@given(st.none() | st.integers(0, 30), st.integers(0, 30))
def test_both_ends_are_always_kept_and_what_lies_between_up_to_the_limit(epochs, last):
    kept = Recording(epochs=epochs).kept(last)
    assert list(kept) == sorted(set(kept))
    assert {0, last} <= set(kept)
    limit = last if epochs is None else min(epochs, last)
    assert set(kept) - {last} == set(range(limit + 1)) - {last}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": -1}, "epochs is -1: give 0 or more"),
        ({"dtype": "float8"}, "dtype is float8: give one of float32, bfloat16, float16"),
        ({"dtype": "int32"}, "dtype is int32"),
        ({"images": 0}, "images is 0: give 1 or more, or null for all"),
        ({"dtype": torch.float64}, "dtype is torch.float64: give one of"),
    ],
)
def test_impossible_recordings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Recording(**settings)


def test_a_dtype_has_one_name():
    assert Recording(dtype="bfloat16") == Recording(dtype=torch.bfloat16)
    assert Recording() == Recording(epochs=None, dtype="float32")


def normed():
    """A network whose state holds parameters, floating buffers and an integer one."""
    network = nn.Sequential(nn.Linear(50, 20), nn.BatchNorm1d(20))
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator).exp())
    network[1].num_batches_tracked.fill_(16_777_217)  # no float32 holds it
    return network


def record(folder, state):
    recorder = Recorder(folder, {})
    recorder.start()
    recorder.record(0, state, 0.5)
    recorder.complete([0])
    return Trajectory(folder)


@pytest.mark.parametrize(
    ("dtype", "bound", "width"),
    [("float32", 0, 4), ("bfloat16", 2**-8, 2), ("float16", 2**-11, 2)],
)
def test_parameters_are_read_back_within_the_rounding_and_buffers_exactly(
    tmp_path, dtype, bound, width
):
    network = normed()
    found = record(tmp_path, Recording(dtype=dtype).state(network))
    stored = load_file(tmp_path / "state-0000.safetensors")
    state, parameters = found.state(0), dict(network.named_parameters())
    assert list(state) == sorted(network.state_dict())
    for name, exact in network.state_dict().items():
        assert state[name].dtype == exact.dtype
        if name in parameters:
            assert stored[name].element_size() == width
            assert ((state[name] - exact).abs() <= bound * exact.abs()).all()
        else:
            assert torch.equal(state[name], exact)


def test_a_weight_too_large_for_the_dtype_is_refused():
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(7e4)
    with pytest.raises(ValueError, match="weight has a weight of 7e\\+04, too large for.*bfloat16"):
        Recording(dtype="float16").state(network)
    assert Recording(dtype="bfloat16").state(network)["weight"].isfinite().all()


COMPLETE = ["[3]", '{"states": 4}', '{"epochs": []}', '{"epochs": 3}', '{"epochs": ["a"]}', "{"]


@pytest.mark.parametrize("complete", COMPLETE)
def test_a_folder_that_is_no_trajectory(tmp_path, complete):
    store = TrajectoryStore(tmp_path)
    path = store.path({})
    path.mkdir()
    with pytest.raises(ValueError, match="not a complete trajectory"):
        Trajectory(path)
    assert store.find({}) is None
    (path / "identity.json").write_text("{}")
    (path / "complete.json").write_text(complete)
    for open_it in (lambda: Trajectory(path), lambda: store.find({})):
        with pytest.raises(ValueError, match="not a complete trajectory.*delete the folder"):
            open_it()


def test_a_truncated_state_is_named(data, tmp_path):
    found, _ = train(data, TrajectoryStore(tmp_path))
    file = found.path / "state-0002.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"state-0002\.safetensors is damaged"):
        found.state(2)
    file.unlink()
    with pytest.raises(ValueError, match=r"state-0002\.safetensors is damaged or missing"):
        found.state(2)


def test_an_epoch_beyond_the_record(subject):
    with pytest.raises(ValueError, match=r"epoch 5 is not among.*\(0-4\).* recipe.epochs"):
        subject.trajectories[0].state(5)


@pytest.mark.parametrize(
    ("other", "message"), [({"width": 7}, "there"), ({"depth": 2}, "has no|there")]
)
def test_another_network_is_refused(subject, other, message):
    network = build_network(
        lambda **s: MLP(**{"depth": 1, "width": 6, **other, **s}), subject.data, seed=0
    )
    with pytest.raises(ValueError, match=f"recorded for another network.*{message}"):
        subject.trajectories[0].load_into(network, 0)


@pytest.mark.parametrize(
    ("other", "message"), [({"width": 7}, "there"), ({"depth": 2}, "has no|there")]
)
def test_the_check_refuses_what_loading_would(subject, other, message):
    network = build_network(
        lambda **s: MLP(**{"depth": 1, "width": 6, **other, **s}), subject.data, seed=0
    )
    with pytest.raises(ValueError, match=f"recorded for another network.*{message}"):
        subject.trajectories[0].check(network)
    subject.trajectories[0].check(subject.network())


def test_parameters_without_buffers_pass_the_check_but_cannot_be_loaded(tmp_path):
    network = normed()
    found = record(tmp_path, dict(network.named_parameters()))
    found.check(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match="it has no 1.running_mean; imported buffers hold"):
        found.load_into(network, 0)
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(50, 20), nn.Identity()), "it has 1.bias, unknown here"),
        (nn.Sequential(nn.Linear(50, 20), nn.BatchNorm1d(21)), "1.weight is (20,) there, (21,)"),
        (nn.Sequential(nn.Linear(50, 20), nn.PReLU(20)), "it has 1.bias, unknown here"),
    ],
)
def test_the_check_knows_buffers_from_parameters(tmp_path, network, message):
    found = record(tmp_path, normed().state_dict())
    with pytest.raises(ValueError, match=re.escape(message)):
        found.check(network)


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    store = TrajectoryStore(tmp_path / "file")
    said = r"^store is .*file, where .* \(Not a directory\): name another"
    with pytest.raises(ValueError, match=said), store.lock({"seed": 0}, "waiting"):
        pass
