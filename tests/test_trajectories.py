import json

import pytest
import torch
from conftest import expert, small_mlp, trainer

from cwx.networks.mlp import MLP
from cwx.stages import Stages
from cwx.subject import build_network
from cwx.trajectories import Trajectory, TrajectoryStore


def train(data, store, identity, **settings):
    built = []

    def build():
        built.append(1)
        return expert(data, 5, epochs=3)

    stages = Stages(lambda **given: trainer(**given, **settings))
    return stages.train(build, identity, store), len(built)


@pytest.mark.parametrize("every", [1, 3, 100])
def test_exactly_t_plus_one_states_whatever_the_validation_interval(data, tmp_path, every):
    store = TrajectoryStore(tmp_path)
    found, _ = train(data, store, {"a": 1}, check_val_every_n_epoch=every)
    assert found.epochs == 3
    assert len(list(found.path.glob("state-*"))) == 4
    initial = build_network(small_mlp, data, seed=5).state_dict()
    assert all(torch.equal(initial[name], t) for name, t in found.state(0).items())
    assert not (found.path / "checkpoint.ckpt").exists()


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
    first, built = train(data, store, {"a": 1})
    second, again = train(data, store, {"a": 1})
    _, other = train(data, store, {"a": 2})
    assert (built, again, other) == (1, 0, 1)
    assert first.path == second.path
    assert first.identity == {"a": 1}


def test_a_cut_training_continues_to_the_same_states(data, tmp_path):
    whole, _ = train(data, TrajectoryStore(tmp_path / "whole"), {"a": 1})

    class Power(Exception):
        pass

    def build():
        module = expert(data, 5, epochs=3)
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
        Stages(trainer).train(build, {"a": 1}, store)
    assert store.find({"a": 1}) is None
    found, _ = train(data, store, {"a": 1})
    for epoch in range(4):
        a, b = whole.state(epoch), found.state(epoch)
        assert all(torch.equal(a[n], b[n]) for n in a)


def test_a_folder_that_is_no_trajectory(tmp_path):
    with pytest.raises(ValueError, match="not a complete trajectory"):
        Trajectory(tmp_path)
    (tmp_path / "identity.json").write_text("{}")
    (tmp_path / "complete.json").write_text(json.dumps([3]))
    with pytest.raises(ValueError, match="not a complete trajectory"):
        Trajectory(tmp_path)


def test_a_truncated_state_is_named(data, tmp_path):
    found, _ = train(data, TrajectoryStore(tmp_path), {"a": 1})
    file = found.path / "state-0002.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"state-0002\.safetensors is damaged"):
        found.state(2)
    file.unlink()
    with pytest.raises(ValueError, match=r"state-0002\.safetensors is damaged or missing"):
        found.state(2)


def test_an_epoch_beyond_the_record(subject):
    with pytest.raises(ValueError, match="epoch 5 is not among the 4"):
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
