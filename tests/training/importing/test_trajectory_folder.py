"""`experts.trajectories`: recordings, folders of states, and what is refused."""

import math
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import cwx
from cwx.storage.trajectories import TrajectoryStore, state_name
from cwx.training.importing.epoch_numbers import epochs_of
from cwx.training.importing.trajectory_folder import open_trajectories


def network(width=3):
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def states(count, width=3):
    """States that differ in every tensor."""
    torch.manual_seed(0)
    net, result = network(width), []
    for _ in range(count):
        net.train()(torch.randn(8, 2))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += torch.randn_like(parameter)
        result.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
    return result


def save(path, state):
    path.parent.mkdir(exist_ok=True)
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)


def equal(trajectory, epoch, state):
    read = trajectory.state(epoch)
    return read.keys() == state.keys() and all(torch.equal(read[n], state[n]) for n in state)


@pytest.fixture
def store(tmp_path):
    return TrajectoryStore(tmp_path / "store")


NAMES = {
    "epoch_{}.pt": (0, 1, 9, 10),
    "epoch-{}.pth": (1, 2, 10),
    "checkpoint_{}.pth": (0, 5, 10),
    "{:04d}.safetensors": (0, 1, 2),
    "resnet18_ep{}.pth.tar": (0, 1, 2),
    "cifar10-epoch{:03d}-acc0.{}5.pt": (0, 1, 2),
    "Epoch {} of 20.pt": (0, 1, 2),
    "net.{}.pt": (0, 1, 2),
    "state-{:04d}.safetensors": (0, 1, 2),
    "epoch={0}-val_loss=0.{0}1.ckpt": (0, 1, 12),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_states_is_imported_in_the_order_of_its_numbers(tmp_path, store, name):
    epochs = NAMES[name]
    values = states(len(epochs))
    for epoch, state in zip(epochs, values, strict=True):
        save(tmp_path / "states" / name.format(epoch, epoch), state)
    (tmp_path / "states/log.csv").write_text("")
    ((_, trajectory),) = open_trajectories(tmp_path / "states", network(), store)
    assert trajectory.recorded_epochs == epochs
    assert all(equal(trajectory, e, state) for e, state in zip(epochs, values, strict=True))
    assert all(math.isnan(trajectory.accuracy(epoch)) for epoch in epochs)
    assert trajectory.is_complete_for(network())
    ((_, again),) = open_trajectories(tmp_path / "states", network(), store)
    assert again.path == trajectory.path


def test_checkpoints_of_lightning_are_the_weights_after_their_epoch(tmp_path, store):
    values = states(3)
    wrapped = [
        {"state_dict": {f"model.{n}": t for n, t in state.items()}, "epoch": epoch}
        for epoch, state in enumerate(values)
    ]
    for name, state in zip(
        ("epoch=0-step=0.ckpt", "epoch=0-step=9.ckpt", "epoch=1-step=18.ckpt"), wrapped, strict=True
    ):
        save(tmp_path / "states" / name, state)
    ((_, trajectory),) = open_trajectories(tmp_path / "states", network(), store)
    assert trajectory.recorded_epochs == (0, 1, 2)
    assert all(equal(trajectory, epoch, state) for epoch, state in enumerate(values))


def test_another_order_or_content_is_another_trajectory(tmp_path, store):
    first, second = states(2)
    paths = set()
    for a, b in ((first, second), (second, first)):
        save(tmp_path / "states/0.pt", a)
        save(tmp_path / "states/1.pt", b)
        ((_, trajectory),) = open_trajectories(tmp_path / "states", network(), store)
        assert equal(trajectory, 0, a)
        paths.add(trajectory.path)
    assert len(paths) == 2


UNCLEAR = {
    "no number": (["epoch_0.pt", "last.pt"], "it has last.pt without a number"),
    "no number at all": (["a.pt", "b.pt"], "it has a.pt, b.pt without a number"),
    "two numbers": (["1_93.pt", "2_94.pt"], "it has 1_93.pt, 2_94.pt whose names differ in sev"),
    "twice": (["epoch_1.pt", "epoch_01.pt"], "it has epoch_01.pt, epoch_1.pt of one number"),
    "two suffixes": (["1.pt", "1.pth"], "it has 1.pt, 1.pth of one number"),
    "a version": (
        ["epoch=1-step=8.ckpt", "epoch=1-step=8-v1.ckpt"],
        "it has epoch=1-step=8-v1.ckpt, epoch=1-step=8.ckpt of one number",
    ),
    "two kinds": (["net_1.pt", "ema_2.pt"], "it has ema_2.pt, net_1.pt of different kinds"),
    "no integer": (["epoch_1.5.pt", "epoch_2.5.pt"], "epoch_1.5.pt has the number 1.5, which is"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_an_unclear_order_is_refused_with_the_names(tmp_path, store, case):
    names, message = UNCLEAR[case]
    for name in names:
        save(tmp_path / "states" / name, {})
    message = f"the order of the states in {tmp_path}/states is unclear: {message}"
    with pytest.raises(ValueError, match=re.escape(message)):
        open_trajectories(tmp_path / "states", network(), store)
    assert not store.root.exists()


def test_of_more_files_the_first_names_are_listed():
    with pytest.raises(ValueError, match=r"a\.pt, .* f\.pt and 2 more without a number"):
        epochs_of({f"{letter}.pt": ".pt" for letter in "abcdefgh"})


def record(folder, values, width=3):
    net = network(width)
    with cwx.TrajectoryRecorder(folder) as recorder:
        for state in values:
            net.load_state_dict(state)
            recorder.record(net)


def test_a_recording_is_read_in_place(tmp_path, store):
    values = states(3)
    record(tmp_path / "a", values)
    ((name, trajectory),) = open_trajectories(tmp_path / "a", network(), store)
    assert (name, trajectory.path) == (f"the trajectory {tmp_path}/a", tmp_path / "a")
    assert all(equal(trajectory, epoch, state) for epoch, state in enumerate(values))
    assert not store.root.exists()


def test_recordings_of_other_content_have_other_identities(tmp_path, store):
    first, second, third = states(3)
    record(tmp_path / "a", [first, second])
    record(tmp_path / "b", [first, third])
    identities = [
        trajectory.identity
        for name in "ab"
        for _, trajectory in open_trajectories(tmp_path / name, network(), store)
    ]
    assert identities[0] != identities[1]


def recording(change):
    def write(folder):
        record(folder, states(3))
        change(folder)

    return write


def unlink(name):
    return recording(lambda folder: (folder / name).unlink())


def saved(*values, name="epoch_{}.pt"):
    def write(folder):
        for epoch, state in enumerate(values):
            save(folder / name.format(epoch), state)

    return write


def infinite(state):
    return {**state, "1.running_var": torch.full((3,), math.inf)}


def store_format(*values):
    """As recorded by another program, in the store's format."""

    def write(folder):
        for epoch, state in enumerate(values):
            save(folder / state_name(epoch), state)
        (folder / "identity.json").write_text("{}")
        (folder / "complete.json").write_text(f'{{"epochs": {list(range(len(values)))}}}')

    return write


FIRST, SECOND, THIRD = states(3)
BAD = {
    "missing": (lambda _: None, "the trajectory {folder} does not exist: name a folder"),
    "empty": (lambda folder: folder.mkdir(), "{folder} has no trajectory: neither a recording"),
    "killed": (
        unlink("complete.json"),
        "the recording {folder} is not complete (epochs 0-2): continue its training, or complete "
        "it with cwx.TrajectoryRecorder('{folder}').close()",
    ),
    "lost": (unlink("state-0001.safetensors"), "{folder}/state-0001.safetensors is missing or has"),
    "changed": (
        recording(lambda folder: save(folder / "state-0001.safetensors", FIRST)),
        "{folder}/state-0001.safetensors is missing or has changed since it was recorded",
    ),
    "recorded wider": (
        lambda folder: record(folder, states(2, 4), 4),
        "epoch 0 of {folder} was recorded for another network: 0.weight is (4, 2) there, (3, 2)",
    ),
    "saved wider": (
        saved(*states(2, 4)),
        "the checkpoint {folder}/epoch_0.pt is of another network: different shape 0.bias (4,)",
    ),
    "mixed": (saved(FIRST, states(1, 4)[0]), "the checkpoint {folder}/epoch_1.pt is of another"),
    "mixed states": (
        store_format(FIRST, states(1, 4)[0]),
        "epoch 1 of {folder} was recorded for another network: 0.weight",
    ),
    "not finite": (
        saved(FIRST, infinite(SECOND)),
        "1.running_var in the checkpoint {folder}/epoch_1.pt is not finite",
    ),
    "infinite states": (
        store_format(FIRST, infinite(SECOND)),
        "1.running_var in epoch 1 of the trajectory {folder} is not finite "
        "({folder}/state-0001.safetensors)",
    ),
    "constant": (
        saved(FIRST, SECOND, SECOND),
        "epoch 2 of the trajectory {folder} has the weights of the epoch before it",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_useless_trajectory_is_refused(tmp_path, store, case):
    write, message = BAD[case]
    folder = tmp_path / "a"
    write(folder)
    with pytest.raises(ValueError, match=re.escape(message.format(folder=folder))):
        open_trajectories(folder, network(), store)


def test_a_recording_of_a_kill_is_completed_as_the_message_says(tmp_path, store):
    unlink("complete.json")(tmp_path / "a")
    cwx.TrajectoryRecorder(tmp_path / "a").close()
    ((_, trajectory),) = open_trajectories(tmp_path / "a", network(), store)
    assert trajectory.recorded_epochs == (0, 1, 2)
