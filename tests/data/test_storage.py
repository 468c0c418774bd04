"""The number of processes that decode images."""

import pytest

from cwx.data import storage
from cwx.data.storage import Storage

SETTINGS = {"kind": "disk", "memory_share": 0.3, "on_error": "stop", "manifests": "manifests"}


@pytest.fixture
def machine(monkeypatch):
    """A machine of nine cores: sets the number of ranks and their environment."""
    monkeypatch.setattr(storage, "_cores", lambda: 9)
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)

    def start(ranks, **environment):
        monkeypatch.setattr(storage.dist, "is_initialized", lambda: ranks is not None)
        monkeypatch.setattr(storage.dist, "get_world_size", lambda: ranks)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return start


@pytest.mark.parametrize(
    ("ranks", "environment", "workers"),
    [
        (None, {}, 8),
        (1, {}, 8),
        (2, {}, 4),
        (3, {}, 2),
        (64, {}, 1),
        (8, {"SLURM_NNODES": "4"}, 4),
        (8, {"LOCAL_WORLD_SIZE": "2"}, 4),
    ],
)
def test_the_ranks_of_a_machine_divide_its_cores(machine, ranks, environment, workers):
    decoding = Storage(workers=None, **SETTINGS)
    # As in a study: the process group begins after the data are read.
    machine(ranks, **environment)
    assert decoding.processes == workers


@pytest.mark.parametrize("workers", [0, 3])
def test_a_number_of_workers_that_is_set_is_that_of_each_rank(machine, workers):
    machine(4)
    assert Storage(workers=workers, **SETTINGS).processes == workers
