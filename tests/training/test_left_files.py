"""A process that is killed between two writes leaves nothing for ever, and loses little."""

import pytest
import torch
from support.builders import expert_requests, sgd, stages, train_experts
from support.studies import CONFIGURATION, make_study

from cwx.storage.shards import Shards
from cwx.storage.trajectories import Recorder, TrajectoryStore
from cwx.study.results import Results
from cwx.training.stages import Stages

TOGETHER = {"at_once": 2, "optimizer": sgd(0.1, 0.9)}


class PowerCut(BaseException):
    """Ends a process at once, so that it removes nothing."""


def powerless(function):
    """The function, after which the power fails."""

    def call(*arguments, **settings):
        function(*arguments, **settings)
        raise PowerCut

    return call


def never(*_, **__):
    raise AssertionError("made again")


def test_the_checkpoint_of_complete_experts_is_removed(data, tmp_path, monkeypatch):
    store = TrajectoryStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Stages, "_fit", powerless(Stages._fit))
        with pytest.raises(PowerCut):
            train_experts(data, [3, 4], store, **TOGETHER)
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    part = checkpoint.parent / ".state-0004.safetensors.a1b2_c3d.part"
    part.write_bytes(b"half")
    # The entry of the other expert.
    stages().train(never, expert_requests(4), store, at_once=1)
    assert checkpoint.exists()
    stages().train(never, expert_requests(3), store, at_once=1)
    assert not checkpoint.exists()
    assert not part.exists()


def test_experts_that_are_not_complete_keep_their_checkpoint(data, tmp_path):
    path = TrajectoryStore(tmp_path).path({"seed": 3})
    path.mkdir()
    for name in ("checkpoint-0123abcd.ckpt", ".checkpoint-0123abcd.ckpt.x1.part"):
        (path / name).write_bytes(b"half")
    with TrajectoryStore(tmp_path).lock({"seed": 3}, "waiting"):
        assert {file.name for file in path.iterdir()} == {"lock", "checkpoint-0123abcd.ckpt"}
    # Of another group, which nothing reads once the expert is complete.
    train_experts(data, [3], TrajectoryStore(tmp_path))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_between_the_last_states_of_a_group_an_epoch_is_lost(data, tmp_path, monkeypatch):
    """No expert is complete before the last states of all are written."""
    store, record, epochs = TrajectoryStore(tmp_path / "cut"), Recorder.record, []

    def until_power_fails(recorder, epoch, *state):
        if epoch == 4 and recorder.identity["seed"] == 4:
            raise PowerCut
        record(recorder, epoch, *state)

    def noting(recorder, epoch, *state):
        epochs.append(epoch)
        record(recorder, epoch, *state)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "record", until_power_fails)
        with pytest.raises(PowerCut):
            train_experts(data, [3, 4], store, **TOGETHER)
        patch.setattr(Recorder, "record", noting)
        continued = train_experts(data, [3, 4], store, **TOGETHER)
    assert epochs == [4, 4]
    whole = train_experts(data, [3, 4], TrajectoryStore(tmp_path / "whole"), **TOGETHER)
    for cut, other in zip(continued, whole, strict=True):
        state = cut.state(4)
        assert all(torch.equal(state[name], value) for name, value in other.state(4).items())


def test_a_complete_set_in_a_read_only_store_is_only_read(tmp_path, monkeypatch):
    store, identity = TrajectoryStore(tmp_path), {"set": "zeros"}
    shards = Shards(store.path(identity), count=1, size=1)
    shards.start(identity)
    shards.write(0, {"x": torch.zeros(1)})
    shards.complete()
    monkeypatch.setattr("cwx.storage.shards.write_json", never)
    stages().write_shards(never, shards, identity, store)


class RealImages:
    """A method without training."""

    def __init__(self, *, subject, seed, stage):
        self.subject = subject

    def explanations(self):
        return self.subject.real_images(1)


def test_the_checkpoint_of_a_finished_method_is_removed(subject, tmp_path, monkeypatch):
    study = make_study(tmp_path / "store", subject.trajectories[0].path)
    study.method, results = {"real": RealImages}, Results(tmp_path / "run")
    checkpoint = results.checkpoint("real")
    with monkeypatch.context() as patch:
        patch.setattr(Results, "add_explanations", powerless(Results.add_explanations))
        with pytest.raises(PowerCut):
            study.run(results, CONFIGURATION, experiment="x", resumed=False)
    # As of a method that is fitted.
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.write_bytes(b"state")
    part = tmp_path / "run/tables/.classes.csv.a1b2c3.part"
    part.write_bytes(b"half")
    # Another run, which may be writing now.
    other = tmp_path / "run/other/tables/.classes.csv.a1b2c3.part"
    other.parent.mkdir(parents=True)
    for file in (other, tmp_path / "run/other/.lock"):
        file.touch()
    study.method = {"real": never}
    study.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=True)
    assert not checkpoint.exists()
    assert not part.exists()
    assert other.exists()
