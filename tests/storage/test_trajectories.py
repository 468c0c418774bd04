import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.builders import expert_requests, experts, small_mlp, stages, train_experts
from torch import nn

from cwx.networks.mlp import MLP
from cwx.storage.recording import Recording
from cwx.storage.trajectories import Recorder, Trajectory, TrajectoryStore
from cwx.training.build import build_network
from cwx.training.callbacks.checkpoints import AtomicCheckpointIO

RECORD_ALL = Recording()


def train(data, store, recording=RECORD_ALL, seed=5, **settings):
    """An expert of 3 epochs, and the number of trainings that were needed."""
    trainings = []

    def build(missing):
        trainings.append(missing)
        seeds = [request.seed for request in missing]
        return experts(data, seeds, epochs=3, recording=recording)

    (trajectory,) = stages(**settings).train(build, expert_requests(seed), store, at_once=1)
    return trajectory, len(trainings)


@pytest.mark.parametrize("every", [1, 3, 100])
def test_exactly_t_plus_one_states_whatever_the_validation_interval(data, tmp_path, every):
    store = TrajectoryStore(tmp_path)
    trajectory, _ = train(data, store, check_val_every_n_epoch=every)
    assert trajectory.epochs == 3
    assert len(list(trajectory.path.glob("state-*"))) == 4
    initial = build_network(small_mlp, data, seed=5).state_dict()
    assert all(torch.equal(initial[name], t) for name, t in trajectory.state(0).items())
    assert not list(trajectory.path.glob("*.ckpt"))


def test_states_are_not_views_of_each_other(subject):
    states = [subject.trajectories[0].state(e) for e in range(5)]
    for before, after in zip(states, states[1:], strict=False):
        assert any(not torch.equal(before[n], after[n]) for n in before)


def test_each_state_is_stored_with_its_accuracy(subject):
    trajectory = subject.trajectories[0]
    network = subject.trained_network(trajectory)
    test = subject.data.splits.test
    right = network(subject.data.normalization.from_bytes(test.images)).argmax(1) == test.labels
    assert trajectory.accuracy(4) == pytest.approx(right.double().mean().item())
    assert trajectory.accuracy(4) > 0.9 > trajectory.accuracy(0)


def test_an_expert_is_trained_once(data, tmp_path):
    store = TrajectoryStore(tmp_path)
    first, trainings = train(data, store)
    second, again = train(data, store)
    _, other = train(data, store, seed=6)
    assert (trainings, again, other) == (1, 0, 1)
    assert first.path == second.path
    assert first.identity == {"seed": 5}


def test_an_interrupted_training_continues_to_the_same_states(data, tmp_path):
    whole, _ = train(data, TrajectoryStore(tmp_path / "whole"))

    class PowerFailure(Exception):
        pass

    def build(missing):
        module = experts(data, [5], epochs=3)
        step, module.steps_done = module.training_step, 0

        def training_step(batch, batch_idx):
            module.steps_done += 1
            if module.steps_done > 13:  # in the second epoch
                raise PowerFailure
            return step(batch, batch_idx)

        module.training_step = training_step
        return module

    store = TrajectoryStore(tmp_path / "cut")
    with pytest.raises(PowerFailure):
        stages().train(build, expert_requests(5), store, at_once=1)
    assert store.find({"seed": 5}) is None
    trajectory, _ = train(data, store)
    for epoch in range(4):
        a, b = whole.state(epoch), trajectory.state(epoch)
        assert all(torch.equal(a[n], b[n]) for n in a)


def test_a_training_stopped_after_its_last_checkpoint_is_complete(data, tmp_path, monkeypatch):
    class PowerFailure(Exception):
        pass

    save = AtomicCheckpointIO.save_checkpoint

    def cut(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path, storage_options)
        if checkpoint["epoch"] == 2:
            raise PowerFailure

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", cut)
    store = TrajectoryStore(tmp_path)
    with pytest.raises(PowerFailure):
        train(data, store)
    monkeypatch.undo()
    trajectory, trainings = train(data, store)
    assert (trajectory.recorded_epochs, trainings) == ((0, 1, 2, 3), 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("epochs", "recorded"),
    [(None, [0, 1, 2, 3]), (0, [0, 3]), (1, [0, 1, 3]), (3, [0, 1, 2, 3]), (9, [0, 1, 2, 3])],
)
def test_the_recording_does_not_change_the_training(data, tmp_path, epochs, recorded, dtype):
    whole, _ = train(data, TrajectoryStore(tmp_path / "whole"))
    recording = Recording(epochs=epochs, dtype=dtype)
    trajectory, _ = train(data, TrajectoryStore(tmp_path / "some"), recording)
    assert json.loads((trajectory.path / "complete.json").read_text()) == {"epochs": recorded}
    assert list(trajectory.recorded_epochs) == recorded
    assert trajectory.epochs == 3
    assert len(list(trajectory.path.glob("state-*"))) == len(recorded)
    for epoch in recorded:
        exact, read = whole.state(epoch), trajectory.state(epoch)
        assert all(torch.equal(exact[n].to(recording.dtype).float(), read[n]) for n in exact)
        assert trajectory.accuracy(epoch) == whole.accuracy(epoch)


def test_experts_trained_in_parallel_are_recorded_in_separate_folders(data, tmp_path):
    store, recording = TrajectoryStore(tmp_path), Recording(epochs=0)
    trajectories = train_experts(data, [7, 3], store, at_once=2, epochs=2, recording=recording)
    for trajectory, seed in zip(trajectories, (7, 3), strict=True):
        assert trajectory.identity == {"seed": seed}
        assert trajectory.recorded_epochs == (0, 2)
        initial = build_network(small_mlp, data, seed=seed).state_dict()
        assert all(torch.equal(initial[name], t) for name, t in trajectory.state(0).items())
    assert any(
        not torch.equal(t, trajectories[1].state(2)[n]) for n, t in trajectories[0].state(2).items()
    )


def test_reading_an_unrecorded_epoch_is_refused(data, tmp_path):
    trajectory, _ = train(data, TrajectoryStore(tmp_path), Recording(epochs=1))
    remedy = r"\(0-1, 3\): choose one of these, or raise recipe.recording.epochs"
    for read in (trajectory.state, trajectory.accuracy):
        with pytest.raises(ValueError, match=f"epoch 2 is not among those recorded.*{remedy}"):
            read(2)


@given(st.none() | st.integers(0, 30), st.integers(0, 30))
def test_epochs_up_to_the_limit_and_the_last_are_recorded(epochs, last):
    stored = Recording(epochs=epochs).recorded_epochs(last)
    assert list(stored) == sorted(set(stored))
    assert {0, last} <= set(stored)
    limit = last if epochs is None else min(epochs, last)
    assert set(stored) - {last} == set(range(limit + 1)) - {last}


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


def test_a_dtype_and_its_name_are_equivalent():
    assert Recording(dtype="bfloat16") == Recording(dtype=torch.bfloat16)
    assert Recording() == Recording(epochs=None, dtype="float32")


def network_with_buffers():
    """A network with parameters, floating-point buffers and an integer buffer."""
    network = nn.Sequential(nn.Linear(50, 20), nn.BatchNorm1d(20))
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator).exp())
    network[1].num_batches_tracked.fill_(16_777_217)  # not representable in float32
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
def test_parameters_are_read_up_to_rounding_and_buffers_exactly(tmp_path, dtype, bound, width):
    network = network_with_buffers()
    trajectory = record(tmp_path, Recording(dtype=dtype).state(network))
    stored = load_file(tmp_path / "state-0000.safetensors")
    state, parameters = trajectory.state(0), dict(network.named_parameters())
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
def test_an_incomplete_folder_is_refused(tmp_path, complete):
    store = TrajectoryStore(tmp_path)
    path = store.path({})
    path.mkdir()
    with pytest.raises(ValueError, match="not a complete trajectory"):
        Trajectory(path)
    assert store.find({}) is None
    (path / "identity.json").write_text("{}")
    (path / "complete.json").write_text(complete)
    for open_trajectory in (lambda: Trajectory(path), lambda: store.find({})):
        with pytest.raises(ValueError, match="not a complete trajectory.*delete the folder"):
            open_trajectory()


def test_a_truncated_or_missing_state_is_named_in_the_error(data, tmp_path):
    trajectory, _ = train(data, TrajectoryStore(tmp_path))
    file = trajectory.path / "state-0002.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"state-0002\.safetensors is damaged"):
        trajectory.state(2)
    file.unlink()
    with pytest.raises(ValueError, match=r"state-0002\.safetensors is damaged or missing"):
        trajectory.state(2)


def test_an_epoch_after_the_last_is_refused(subject):
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
def test_the_check_refuses_another_network(subject, other, message):
    network = build_network(
        lambda **s: MLP(**{"depth": 1, "width": 6, **other, **s}), subject.data, seed=0
    )
    with pytest.raises(ValueError, match=f"recorded for another network.*{message}"):
        subject.trajectories[0].check(network)
    subject.trajectories[0].check(subject.network())


def test_parameters_without_buffers_pass_the_check_but_cannot_be_loaded(tmp_path):
    network = network_with_buffers()
    trajectory = record(tmp_path, dict(network.named_parameters()))
    trajectory.check(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match="it has no 1.running_mean; imported buffers hold"):
        trajectory.load_into(network, 0)
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(50, 20), nn.Identity()), "it has 1.bias, unknown here"),
        (nn.Sequential(nn.Linear(50, 20), nn.BatchNorm1d(21)), "1.weight is (20,) there, (21,)"),
        (nn.Sequential(nn.Linear(50, 20), nn.PReLU(20)), "it has 1.bias, unknown here"),
    ],
)
def test_the_check_distinguishes_buffers_from_parameters(tmp_path, network, message):
    trajectory = record(tmp_path, network_with_buffers().state_dict())
    with pytest.raises(ValueError, match=re.escape(message)):
        trajectory.check(network)


def test_a_store_that_cannot_be_written_is_named_in_the_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = TrajectoryStore(tmp_path / "file")
    message = r"^store is .*file, where .* \(Not a directory\): name another"
    with pytest.raises(ValueError, match=message), store.lock({"seed": 0}, "waiting"):
        pass
