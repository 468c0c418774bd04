"""Evaluations that ranks divide have the outcome of one process."""

import json
import os

import pytest
from support.forked import ForkedProcess
from support.paths import ROOT

from cwx.evaluations.outcome import OnAllRanks, Outcome
from cwx.study.steps.evaluation import evaluate_on_all_ranks
from cwx.training.ranks import Ranks

SCRIPT = str(ROOT / "tests" / "support" / "rank_outcomes.py")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def start(store, rank, count, out, *names):
    # One thread a process: with two, sums may have another order.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [store, rank, count, out, *names]
    return ForkedProcess(SCRIPT, arguments, folder=store, environment=environment)


def ended(processes):
    """Their outputs; none is left behind."""
    try:
        return [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def outcomes(store, count):
    out = store / f"{count}.json"
    processes = [start(store, rank, count, out) for rank in range(count)]
    outputs = ended(processes)
    assert [process.returncode for process in processes] == [0] * count, outputs
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def alone(store):
    """The outcome of one process, which leaves its experts in the store."""
    return outcomes(store, 1)


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_several_processes_measure_what_one_does(store, alone, count):
    """Batches of 7, 7, 7 and 3 images, three start epochs, six trainings."""
    assert len(alone) > 8
    assert outcomes(store, count) == alone


@pytest.mark.parametrize("name", ["failing", "failing_alone"])
def test_an_error_of_one_process_is_that_of_all(store, alone, name):
    processes = [start(store, rank, 2, store / "none", name) for rank in range(2)]
    for process, output in zip(processes, ended(processes), strict=True):
        assert process.returncode != 0
        assert "ValueError: the images of the last rank are damaged" in output
    assert not (store / "none").exists()


class Counted:
    on_all_ranks = True

    def __call__(self, subject, sources):
        raise AssertionError


def test_a_single_process_leaves_all_to_the_usual_way():
    assert isinstance(Counted(), OnAllRanks)
    assert not isinstance(lambda *_: Outcome(), OnAllRanks)
    assert Ranks.running() == Ranks()
    assert evaluate_on_all_ranks({"counted": Counted()}, None, {}) == {}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [0, 1, 4, 6])
def test_results_keep_the_order_of_the_items(count, length, monkeypatch):
    """Every rank in turn, with the parts of the others as they compute them."""
    items = [*range(length)]
    parts = [[10 * i for i in Ranks(index, count).own(items)] for index in range(count)]
    monkeypatch.setattr(Ranks, "collect", lambda *_: parts)
    for index in range(count):
        assert Ranks(index, count).map(lambda i: 10 * i, items) == [10 * i for i in items]
