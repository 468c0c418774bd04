"""The share of training time that passes in waiting for data."""

import logging
from types import SimpleNamespace

import pytest
import torch
from support.builders import image_data, small_convnet, train_experts
from support.encoded_images import image_tree
from support.pictures import UNSET

from cwx.data.datasets.folders import ImageFolder
from cwx.data.streamed_images import StreamedImages
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.callbacks import data_wait, progress
from cwx.training.callbacks.data_wait import DataWait
from cwx.training.callbacks.progress import ProgressLines


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


class Rows:
    """A logger that keeps what it is given."""

    def __init__(self):
        self.rows = []

    def log_metrics(self, row, step):
        self.rows.append((step, row))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(data_wait, "time", clock)
    return clock


def stub_trainer(ranks_wait=0.0):
    """A trainer on a CPU; another rank waits for the share `ranks_wait`."""

    def reduce(value, reduce_op):
        assert reduce_op == "max"
        return max(value, torch.tensor(ranks_wait))

    strategy = SimpleNamespace(
        root_device=torch.device("cpu"), broadcast=lambda value: value, reduce=reduce
    )
    return SimpleNamespace(strategy=strategy, loggers=[Rows()], global_step=0, is_global_zero=True)


def stub_module(images):
    train = SimpleNamespace(images=images)
    batches = SimpleNamespace(splits=SimpleNamespace(train=train))
    return SimpleNamespace(batches=batches, stages=["expert-3", "expert-4"], stage="expert-3+1")


def streamed():
    images = object.__new__(StreamedImages)
    object.__setattr__(images, "files", SimpleNamespace(workers=2))
    return images


def epoch(callback, trainer, module, clock, *, steps, wait, work):
    """An epoch whose steps take `wait` seconds for the batch of 10 images, then `work` seconds."""
    batch = [SimpleNamespace(total=10)] * 2
    callback.on_train_epoch_start(trainer, module)
    for step in range(steps):
        clock.now += wait
        callback.on_train_batch_start(trainer, module, batch, step)
        clock.now += work
        callback.on_train_batch_end(trainer, module, None, batch, step)
        trainer.global_step += 1
    clock.now += 1000
    callback.on_train_epoch_end(trainer, module)


def test_the_share_and_the_images_per_second_are_those_of_the_steps(clock):
    callback, trainer, module = DataWait(), stub_trainer(), stub_module(torch.zeros(1))
    callback.on_train_start(trainer, module)
    epoch(callback, trainer, module, clock, steps=8, wait=0.5, work=1.5)
    expected = {"data_wait": 0.25, "images_per_second": 5.0}
    row = {f"{stage}/{name}": v for stage in module.stages for name, v in expected.items()}
    assert trainer.loggers[0].rows == [(8, pytest.approx(row))]


def test_short_epochs_are_measured_together(clock):
    callback, trainer, module = DataWait(), stub_trainer(), stub_module(torch.zeros(1))
    callback.on_train_start(trainer, module)
    for _ in range(7):
        epoch(callback, trainer, module, clock, steps=2, wait=1.0, work=1.0)
        assert callback.share is None
    # 28 seconds of training: two values of 12 seconds each.
    assert [step for step, _ in trainer.loggers[0].rows] == [6, 12]


def test_the_largest_share_of_all_ranks_is_logged(clock):
    callback, trainer, module = DataWait(), stub_trainer(0.75), stub_module(torch.zeros(1))
    callback.on_train_start(trainer, module)
    epoch(callback, trainer, module, clock, steps=8, wait=0.5, work=1.5)
    assert trainer.loggers[0].rows[0][1]["expert-3/data_wait"] == 0.75


@pytest.mark.parametrize(
    ("wait", "launch", "work", "expected"),
    [
        # The GPU works off the step while the program waits.
        (1.0, 0.1, 2.0, 0.0),
        # It has finished 0.6 of the 1.0 seconds before the batch arrives.
        (1.0, 0.1, 0.5, 0.6 / 1.1),
        # The program waits for the GPU at the end of each step.
        (1.0, 2.0, 2.0, 1.0 / 3.0),
    ],
)
def test_the_wait_of_a_gpu_is_that_in_which_it_has_no_work(
    clock, monkeypatch, wait, launch, work, expected
):
    gpu = SimpleNamespace(free=0.0)

    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self):
            self.time = max(clock.now, gpu.free)

        def query(self):
            return self.time <= clock.now

        def elapsed_time(self, end):
            assert self.query()
            assert end.query()
            return 1000 * (end.time - self.time)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    callback, trainer = DataWait(), stub_trainer()
    trainer.strategy.root_device = torch.device("cuda")
    callback.on_train_start(trainer, None)
    callback.on_train_epoch_start(trainer, None)
    batch = [SimpleNamespace(total=10)]
    for step in range(400):
        clock.now += wait if step else 0.0
        callback.on_train_batch_start(trainer, None, batch, step)
        gpu.free = max(clock.now, gpu.free) + work
        clock.now += launch
        callback.on_train_batch_end(trainer, None, None, batch, step)
    # Like a synchronisation.
    clock.now = max(clock.now, gpu.free)
    assert callback.share == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("wait", [0.9, 1.1])
def test_a_wait_of_more_than_a_third_is_said_once_with_the_remedy(clock, caplog, wait):
    callback, trainer, module = DataWait(), stub_trainer(), stub_module(streamed())
    for _ in range(2):
        callback.on_train_start(trainer, module)
        for _ in range(2):
            epoch(callback, trainer, module, clock, steps=8, wait=wait, work=2.0)
    expected = [] if wait == 0.9 else ["waits for images for 35 % of its time"]
    assert len(caplog.messages) == len(expected)
    for line, text in zip(caplog.messages, expected, strict=True):
        assert text in line
        assert "raise data.workers (it is 2), or set data.storage=memory" in line


def test_images_in_memory_are_no_cause(clock, caplog):
    callback, trainer, module = DataWait(), stub_trainer(), stub_module(torch.zeros(1))
    callback.on_train_start(trainer, module)
    epoch(callback, trainer, module, clock, steps=8, wait=3.0, work=1.0)
    assert not caplog.messages


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_slow_files_are_seen_in_a_training(tmp_path, monkeypatch, caplog, storage):
    """Decoding an image takes a second, on a clock that stands still otherwise."""
    clock = Clock()
    for module in (data_wait, progress):
        monkeypatch.setattr(module, "time", clock)
    decode = StreamedImages.decode

    def slow(images, positions):
        clock.now += len(positions)
        return decode(images, positions)

    monkeypatch.setattr(StreamedImages, "decode", slow)
    caplog.set_level(logging.INFO)
    source = ImageFolder(
        root=str(image_tree(tmp_path / "images", ["png"], digits=1)), **{**UNSET, "size": 8}
    )
    data = image_data(
        source, mean=0.5, std=0.25, storage=storage, workers=0, manifests=str(tmp_path)
    )
    train_experts(data, [3], TrajectoryStore(tmp_path / "store"), network=small_convnet, epochs=2)
    lines = [line for line in caplog.messages if "waits for images for 100 %" in line]
    assert len(lines) == (storage == "disk")
    assert any("data_wait 1" in line for line in caplog.messages) == (storage == "disk")


def test_progress_lines_have_no_share_before_it_is_measured(caplog):
    caplog.set_level(logging.INFO)
    trainer = SimpleNamespace(
        progress_bar_metrics={"loss": 0.5},
        callbacks=[DataWait()],
        global_step=3,
        estimated_stepping_batches=6,
        is_global_zero=True,
    )
    lines = ProgressLines(seconds=10)
    lines.on_train_start(trainer, None)
    lines.on_train_end(trainer, SimpleNamespace(stage="expert-3"))
    assert "loss 0.5  0:00:00 elapsed" in caplog.text
