"""A training that is killed within an epoch ends as one that was not."""

import os
from types import SimpleNamespace

import pytest
import torch
from support.cut_training import STEPS, Cut
from support.encoded_images import image_tree
from support.forked import ForkedProcess
from support.paths import ROOT

from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.training.callbacks import checkpoints
from cwx.training.callbacks.checkpoints import CheckpointWithinEpoch

SCRIPT = ROOT / "tests/support/cut_training.py"
# In the middle of each epoch; the checkpoints are two steps apart.
KILLS = (3, 8, 13)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return image_tree(tmp_path_factory.mktemp("images"), ["png"], digits=1)


def train(images, store, **settings):
    """Train until the end or a kill; returns whether it ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = Cut(**settings).arguments(str(images), str(store))
    process = ForkedProcess(str(SCRIPT), arguments, folder=store.parent, environment=environment)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 or settings.get("killed_at") is not None, output
    return process.returncode == 0


def assert_equal(first, second):
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list | tuple):
        for a, b in zip(first, second, strict=True):
            assert_equal(a, b)
    else:
        assert first == second


def assert_same_end(store, other):
    """Networks of each epoch with their accuracies; optimiser and schedules."""
    for seed in (3, 4):
        one, two = (Trajectory(TrajectoryStore(s).path({"seed": seed})) for s in (store, other))
        for epoch in one.recorded_epochs:
            assert_equal(one.state(epoch), two.state(epoch))
            assert one.accuracy(epoch) == two.accuracy(epoch)
    assert_equal(*(torch.load(folder / "end.pt") for folder in (store, other)))


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "plateau"},
        {"schedule": "step"},
        {"storage": "disk"},
        {"storage": "disk", "workers": 2, "schedule": "plateau"},
        {"ranks": 2, "schedule": "plateau"},
        {"storage": "disk", "workers": 2, "ranks": 2},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_training_that_is_killed_within_epochs_ends_as_another(images, tmp_path, settings):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(images, whole, **settings)
    for step in KILLS:
        assert not train(images, cut, every=2, killed_at=step, **settings)
        (file,) = cut.glob("*/checkpoint-*.ckpt")
        assert torch.load(file)["global_step"] == step // 2 * 2
    assert train(images, cut, every=2, **settings)
    assert_same_end(whole, cut)
    assert not list(cut.glob("*/*.ckpt"))


def test_images_of_steps_that_were_done_are_not_decoded_again(images, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(images, whole, storage="disk")
    assert not train(images, cut, storage="disk", every=2, killed_at=STEPS + 4)
    assert train(images, cut, storage="disk", every=2)
    # Two networks: of the second epoch, batches of 7 and 5 images are left after the checkpoint.
    counts = [int((folder / "decoded").read_text()) for folder in (whole, cut)]
    assert counts == [2 * 3 * 33, 2 * (7 + 5 + 33)]


def test_another_number_of_ranks_continues(images, tmp_path):
    """BatchNorm and losses are those of the whole batch, but for rounding."""
    assert not train(images, tmp_path / "cut", every=2, killed_at=3, schedule="plateau")
    assert train(images, tmp_path / "cut", every=2, ranks=2, schedule="plateau")


class Clock:
    """A clock that a step advances."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.mark.parametrize(
    ("durations", "seconds", "expected"),
    [
        ([1.0] * 24, 10.0, [10, 20]),
        # Steps become slower, but by less than twice.
        ([1.0] * 7 + [1.9] * 17, 10.0, [9, 15, 21]),
        ([20.0] * 24, 10.0, [*range(1, 24)]),
        ([0.0] * 24, 10.0, []),
        ([1.0] * 24, 30.0, []),
        ([1.0] * 2000, 1500.0, [1500]),
    ],
)
def test_checkpoints_are_about_as_far_apart_as_asked(
    monkeypatch, tmp_path, durations, seconds, expected
):
    clock, written, messages = Clock(), [], []
    monkeypatch.setattr(checkpoints, "time", clock)
    progress = SimpleNamespace(is_last_batch=False)

    def broadcast(value):
        messages.append(value)
        return value

    trainer = SimpleNamespace(
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
        strategy=SimpleNamespace(broadcast=broadcast),
        save_checkpoint=lambda _: written.append(step),
    )
    callback = CheckpointWithinEpoch(tmp_path / "x.ckpt", seconds=seconds)
    callback.on_train_start(trainer, None)
    callback.on_train_epoch_start(trainer, None)
    for step, duration in enumerate(durations, start=1):
        clock.now += duration
        # The checkpoint after the epoch is another's.
        progress.is_last_batch = step == len(durations)
        callback.on_train_batch_end(trainer, None)
    assert written == expected
    assert len(messages) < 30
    callback.on_train_epoch_start(trainer, None)
    progress.is_last_batch = False
    written.clear()
    clock.now += 0.5 * seconds
    callback.on_train_batch_end(trainer, None)
    assert not written
