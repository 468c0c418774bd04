"""A bank with the explained network, or with a network twice, is refused."""

import pytest
from support.builders import train_experts

from cwx.storage.trajectories import Recorder, Trajectory, TrajectoryStore
from cwx.training.preparation import check_bank


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    store = TrajectoryStore(tmp_path_factory.mktemp("store"))
    return train_experts(data, [0, 1, 2], store, at_once=3)


def copy_of(trajectory, folder):
    """The same weights under another identity, as from another file."""
    recorder = Recorder(folder / "copy", {"checkpoint": "another file"})
    (folder / "copy").mkdir()
    recorder.start()
    recorder.record(0, trajectory.state(trajectory.epochs), 0.5)
    recorder.complete([0])
    return Trajectory(folder / "copy")


def test_distinct_networks_are_accepted(trained):
    check_bank(trained[:1], trained[1:])
    check_bank([], [])


def test_the_explained_network_is_refused_also_in_another_file(trained, tmp_path):
    for network in (trained[0], copy_of(trained[0], tmp_path)):
        with pytest.raises(ValueError, match="is the explained network: .* leave it out"):
            check_bank(trained[:1], [trained[1], network])


def test_a_network_of_two_files_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="is in the bank twice"):
        check_bank(trained[:1], [trained[1], copy_of(trained[1], tmp_path)])
