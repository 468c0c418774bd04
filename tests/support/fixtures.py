"""Fixtures of all tests; the processes that run tests load them, see `tests/conftest.py`."""

import logging
import os

import pytest
from support.builders import (
    ColumnClassifier,
    image_data,
    sgd,
    small_convnet,
    small_mlp,
    train_experts,
)
from support.compositions import read_files_once, remember

from cwx.cli.config import compose
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.subject import Subject


@pytest.fixture(scope="session", autouse=True)
def remembered_compositions(tmp_path_factory, worker_id):
    # The folder of a worker is in that of all.
    folder = tmp_path_factory.getbasetemp()
    memory = (folder if worker_id == "master" else folder.parent) / "compositions"
    memory.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compose, "_compose", remember(compose._compose, memory))
        read_files_once(patched)
        yield


@pytest.fixture(scope="session", autouse=True)
def without_waiting_for_the_disk():
    """No file of a test has to survive a power failure; a disk may take tens of milliseconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def quiet_lightning():
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def data():
    return image_data()


@pytest.fixture(scope="session")
def subject(data, tmp_path_factory):
    """Two experts to explain and one held out, trained once."""
    store = TrajectoryStore(tmp_path_factory.mktemp("store"))
    trajectories = train_experts(data, [0, 1, 2], store, at_once=3)
    return Subject(
        data=data,
        factory=small_mlp,
        trajectories=trajectories[:2],
        held_out=trajectories[2:],
        evaluation_networks={},
    )


@pytest.fixture(scope="session")
def convolutional(data, tmp_path_factory):
    """Two convolutional experts, and what stands for both after they were fine-tuned."""
    store = TrajectoryStore(tmp_path_factory.mktemp("store"))
    found = train_experts(data, [0, 1, 2, 3], store, at_once=4, network=small_convnet)
    return Subject(
        data=data,
        factory=small_convnet,
        trajectories=found[:2],
        fine_tuned=found[2:],
        held_out=[],
        evaluation_networks={},
    )


@pytest.fixture(scope="session")
def looking(data, tmp_path_factory):
    """Networks whose attention is known, one to explain and one held out: trained not at all."""
    store = TrajectoryStore(tmp_path_factory.mktemp("store"))
    found = train_experts(
        data, [0, 1], store, at_once=2, network=ColumnClassifier, epochs=1, optimizer=sgd(0.0)
    )
    return Subject(
        data=data,
        factory=ColumnClassifier,
        trajectories=found[:1],
        held_out=found[1:],
        evaluation_networks={},
    )
