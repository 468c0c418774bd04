"""Recording a training loop of torch or Lightning."""

import logging
import math

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cwx
from cwx.errors import UserError
from cwx.storage import atomic
from cwx.storage.plain_state import plain_state
from cwx.storage.trajectories import Trajectory


def network(width=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def train(net):
    """An epoch: new weights, and new running statistics."""
    net.train()(torch.randn(8, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += torch.randn_like(parameter)


def copies(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def record(folder, net, epochs, **settings):
    """Record a training; returns a copy of each state."""
    states = [copies(net)]
    with cwx.TrajectoryRecorder(folder) as recorder:
        recorder.record(net, **settings)
        for _ in range(epochs):
            train(net)
            states.append(copies(net))
            recorder.record(net, **settings)
    return states


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def same_states(folder, states):
    trajectory = Trajectory(folder)
    return trajectory.recorded_epochs == tuple(range(len(states))) and all(
        equal(trajectory.state(epoch), state) for epoch, state in enumerate(states)
    )


def test_all_states_with_running_statistics_are_recorded(tmp_path):
    states = record(tmp_path / "a", network(), 3, accuracy=0.25)
    assert same_states(tmp_path / "a", states)
    assert "1.running_var" in states[0]
    assert int(states[3]["1.num_batches_tracked"]) == 3
    assert Trajectory(tmp_path / "a").accuracy(3) == 0.25
    record(tmp_path / "b", network(), 1)
    assert math.isnan(Trajectory(tmp_path / "b").accuracy(1))


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def inner(wrap):
    def wrapped(net):
        net[0], net[2] = wrap(net[0]), wrap(net[2])
        return net

    return wrapped


class Compiled(nn.Module):
    """As `torch.compile` wraps a network; importing its compiler takes 15 s."""

    def __init__(self, net):
        super().__init__()
        self._orig_mod = net


DDP = nn.parallel.DistributedDataParallel
WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "DDP": DDP,
    "compiled": Compiled,
    "compiled under DDP": lambda net: DDP(Compiled(net)),
    "DDP compiled": lambda net: Compiled(DDP(net)),
    "compiled parts": inner(Compiled),
    "DDP of parts": inner(DDP),
    "float64": lambda net: net.double(),
}


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_network_is_recorded_under_its_plain_names(wrapper):
    expected = copies(network())
    assert equal(plain_state(WRAPPERS[wrapper](network())), expected)


@pytest.mark.slow
def test_a_compiled_network_is_recorded_under_its_plain_names():
    assert equal(plain_state(torch.compile(network())), copies(network()))


def test_a_child_called_as_a_wrapper_keeps_its_name():
    net = nn.Module()
    net.module, net.model = nn.Linear(2, 2), nn.Module()
    net.model.module = nn.Linear(2, 2)
    assert equal(plain_state(nn.DataParallel(net)), copies(net))


@pytest.mark.usefixtures("process_group")
def test_only_rank_zero_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    record(tmp_path / "a", network(), 2)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("completed", [True, False])
@pytest.mark.parametrize("last", [0, 2, 3])
def test_a_recording_continues_from_any_of_its_states(tmp_path, completed, last):
    states = record(tmp_path, network(), 3)
    if not completed:
        (tmp_path / "complete.json").unlink()
    net = network()
    net.load_state_dict(states[last])
    continued = record(tmp_path, net, 2)
    assert same_states(tmp_path, states[:last] + continued)


def test_a_recording_continues_after_its_last_epoch_if_the_number_is_stated(tmp_path):
    net = network()
    states = record(tmp_path, net, 3)
    train(net)
    with cwx.TrajectoryRecorder(tmp_path) as recorder:
        recorder.record(net, epoch=4)
    assert same_states(tmp_path, [*states, copies(net)])


@pytest.mark.parametrize("settings", [{}, {"epoch": 0}, {"epoch": 2}])
def test_another_training_of_the_network_is_refused(tmp_path, settings):
    states, net = record(tmp_path, network(), 3), network()
    torch.manual_seed(1)
    train(net)
    with pytest.raises(UserError, match="epochs 0-3 of a training, and this state is none of"):
        cwx.TrajectoryRecorder(tmp_path).record(net, **settings)
    assert same_states(tmp_path, states)


OTHERS = {
    "shape": (network(4), r"0\.weight is .*\[3, 2\] there, .*\[4, 2\] here"),
    "name": (nn.Sequential(nn.Linear(2, 3)), r"it has 1\.bias, unknown here"),
    "dtype": (network().bfloat16(), r"0\.weight is torch\.float32 .*, torch\.bfloat16"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_network_is_refused(tmp_path, case):
    states = record(tmp_path, network(), 1)
    other, message = OTHERS[case]
    with pytest.raises(UserError, match=f"{tmp_path} has the trajectory of another.*{message}"):
        cwx.TrajectoryRecorder(tmp_path).record(other)
    assert same_states(tmp_path, states)


def test_a_network_of_a_study_is_refused(subject):
    with pytest.raises(UserError, match="a study trained or imported"):
        cwx.TrajectoryRecorder(subject.trajectories[0].path)


def infinite():
    net = network()
    net[1].running_var.fill_(math.inf)
    return net


BAD = {
    "not finite": (infinite, {}, r"1\.running_var is not finite: the training has diverged"),
    "lazy": (lambda: nn.LazyLinear(2), {}, "weight is UninitializedParameter, not a plain tensor"),
    "meta": (lambda: nn.Linear(2, 2, device="meta"), {}, "not a plain tensor"),
    "percent": (network, {"accuracy": 93}, "accuracy is 93: give a fraction in 0-1"),
    "negative": (network, {"epoch": -1}, "epoch is -1: give the number of epochs"),
    "text": (network, {"epoch": "1"}, "epoch is '1': give"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_impossible_state_is_refused(tmp_path, case):
    build, settings, message = BAD[case]
    with pytest.raises(UserError, match=message):
        cwx.TrajectoryRecorder(tmp_path / "a").record(build(), **settings)
    assert not (tmp_path / "a").exists()


def test_a_file_in_place_of_the_folder_and_an_empty_recording_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        cwx.TrajectoryRecorder(tmp_path / "file")
    with pytest.raises(UserError, match="nothing was recorded into"):
        cwx.TrajectoryRecorder(tmp_path).close()


def test_two_recorders_do_not_write_one_folder(tmp_path):
    first = cwx.TrajectoryRecorder(tmp_path)
    first.record(network())
    with pytest.raises(UserError, match="another recorder writes"):
        cwx.TrajectoryRecorder(tmp_path).record(network())
    first.close()
    cwx.TrajectoryRecorder(tmp_path).record(network())


def test_an_exception_leaves_states_that_can_be_continued(tmp_path, caplog):
    def interrupted():
        with cwx.TrajectoryRecorder(tmp_path) as recorder:
            recorder.record(network())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING):
        interrupted()
    assert "is not complete: its training was interrupted" in caplog.text
    assert not (tmp_path / "complete.json").exists()
    assert same_states(tmp_path, record(tmp_path, network(), 2))


def test_a_kill_within_a_write_leaves_whole_states(tmp_path, monkeypatch):
    class Killed(BaseException):
        """Ends the process: nothing is cleaned up."""

    def kill(_):
        raise Killed

    recorder = cwx.TrajectoryRecorder(tmp_path)
    recorder.record(network())
    monkeypatch.setattr(atomic.os, "fsync", kill)
    monkeypatch.setattr(atomic.Path, "unlink", lambda *_, **__: None)
    net = network()
    train(net)
    with pytest.raises(Killed):
        recorder.record(net)
    monkeypatch.undo()
    # The system releases the lock of a process that ended.
    recorder._release()
    recorder = cwx.TrajectoryRecorder(tmp_path)
    assert recorder.epochs == (0,)
    assert list(tmp_path.glob(".*.part"))
    assert same_states(tmp_path, record(tmp_path, network(), 1))
    assert not list(tmp_path.glob(".*.part"))


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model, self.loss = network(), nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.log("acc", 0.5, on_epoch=True)
        return self.loss(self.model(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Several(Module):
    def __init__(self):
        super().__init__()
        self.ema = network()


def fit(module, *callbacks, epochs=3, **settings):
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(12, 2, generator=generator), torch.arange(12) % 2)
    trainer = L.Trainer(
        max_epochs=epochs, callbacks=[*callbacks], accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, 4), **settings)
    return trainer


class States(L.Callback):
    def __init__(self):
        self.states = [copies(network())]

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append(copies(pl_module.model))


LOADER = "ignore:.*(num_workers|weights_only|not resumable)"


@pytest.mark.filterwarnings(LOADER)
def test_lightning_records_each_epoch(tmp_path):
    states = States()
    fit(Module(), cwx.RecordTrajectory(tmp_path, accuracy="acc"), states)
    assert same_states(tmp_path, states.states)
    assert Trajectory(tmp_path).accuracy(3) == 0.5


@pytest.mark.filterwarnings(LOADER)
@pytest.mark.parametrize("batch", [None, 1], ids=["between epochs", "within an epoch"])
def test_lightning_continues_a_recording(tmp_path, batch):
    class Cut(Exception):
        pass

    class Stopped(Module):
        def on_train_batch_end(self, outputs, _, batch_idx):
            if (self.current_epoch, batch_idx) == (2, batch):
                self.trainer.save_checkpoint(tmp_path / "last.ckpt")
                raise Cut

    class Save(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "last.ckpt")
                raise Cut

    callbacks = [cwx.RecordTrajectory(tmp_path / "a"), *([Save()] if batch is None else [])]
    with pytest.raises(Cut):
        fit(Stopped(), *callbacks)
    assert not (tmp_path / "a/complete.json").exists()
    fit(Module(), cwx.RecordTrajectory(tmp_path / "a"), ckpt_path=tmp_path / "last.ckpt")
    states = States()
    fit(Module(), states)
    # Within an epoch, Lightning draws other batches after an interruption.
    if batch is None:
        assert same_states(tmp_path / "a", states.states)
    trajectory = Trajectory(tmp_path / "a")
    assert trajectory.recorded_epochs == (0, 1, 2, 3)
    assert all(equal(trajectory.state(epoch), states.states[epoch]) for epoch in range(3))


@pytest.mark.filterwarnings(LOADER)
@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (Several, {}, "no single child with parameters .model, ema.: name the one to record"),
        (Module, {"network": "net"}, "Module has no child 'net'"),
        (Module, {"accuracy": "val"}, "no metric 'val' was logged in this epoch, only .*acc"),
    ],
)
def test_an_unclear_network_or_metric_is_refused(tmp_path, module, settings, message):
    with pytest.raises(UserError, match=message):
        fit(module(), cwx.RecordTrajectory(tmp_path, **settings))


@pytest.mark.filterwarnings(LOADER)
@pytest.mark.parametrize(("name", "prefix"), [("model", ""), ("", "model."), ("ema", "")])
def test_the_named_network_is_recorded(tmp_path, name, prefix):
    fit(Several(), cwx.RecordTrajectory(tmp_path, network=name), epochs=1)
    assert f"{prefix}0.weight" in Trajectory(tmp_path).state(1)
