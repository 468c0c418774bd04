"""The statistics of a bank: measured once, kept in the store, and part of a subject."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from support.builders import stages, train_experts

from cwx.explanations.patterns import Triggers
from cwx.storage.store_entries import entries
from cwx.storage.trajectories import TrajectoryStore
from cwx.study.steps.bank import FILE, measure_bank
from cwx.training.bank import Bank

CONFIGURATION = {
    "evaluation": {"verdict": {"statistics": {"size": {"images": 5}}}},
    "method": {"probe": {"steps": 1}},
    "network": {"width": 4},
    "precision": {"methods": {}},
}


OUTPUT = SimpleNamespace()


@dataclass(frozen=True)
class WeightNorm:
    """A statistic that tells networks apart without a search."""

    source: str = "probe"
    needs = Triggers

    def __call__(self, subject, output):
        assert output is OUTPUT
        norm = next(subject.first_network("expert").parameters()).norm().double()
        return {"probe/norm": norm * torch.arange(1.0, len(subject.data.classes) + 1).double()}


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    store = TrajectoryStore(tmp_path_factory.mktemp("store"))
    return train_experts(data, [10, 11, 12], store, at_once=3)


class Measurement:
    def __init__(self, subject, trajectories, folder):
        self.subject = replace(subject, bank=Bank(trajectories=trajectories))
        self.store = TrajectoryStore(folder)
        self.built = []

    def probe(self, *, subject, seed, stage):
        self.built.append((subject.trajectories[0].path.name, seed, stage))
        assert not subject.bank.trajectories
        return SimpleNamespace(explanations=lambda: OUTPUT)

    def __call__(self, configuration=CONFIGURATION, seed=0):
        return measure_bank(
            self.subject,
            {
                "verdict": SimpleNamespace(
                    bank_statistics={"size": WeightNorm()}, suspected_class=lambda *_: 0
                ),
                # Statistics of its own, which no bank needs.
                "own": SimpleNamespace(statistics={}),
            },
            stages=stages(),
            method={"probe": self.probe},
            store=self.store,
            configuration=configuration,
            seed=seed,
        ).bank


@pytest.fixture
def measure(subject, trained, tmp_path):
    return Measurement(subject, trained, tmp_path / "bank")


def test_every_network_of_the_bank_has_its_statistics(measure, subject):
    bank = measure()
    assert bank.statistics["probe/norm"].shape == (3, len(subject.data.classes))
    assert len(bank.statistics["probe/norm"][:, 0].unique()) == 3
    assert [0.5 < accuracy <= 1 for accuracy in bank.accuracies] == [True] * 3
    assert [stage for _, _, stage in measure.built] == [f"bank-{i}-probe" for i in range(3)]


def test_a_second_study_reads_them_from_the_store(measure):
    first, count = measure(), len(measure.built)
    again = measure()
    assert len(measure.built) == count
    assert torch.equal(again.statistics["probe/norm"], first.statistics["probe/norm"])
    assert all(entry.foreign_reason() is None for entry in entries(measure.store.root))


def test_reading_them_removes_what_a_killed_measurement_has_left(measure):
    measure()
    entry = entries(measure.store.root)[0].path
    (entry / "checkpoint-0123abcd.ckpt").write_bytes(b"state")
    measure()
    assert not list(measure.store.root.rglob("*.ckpt"))


def test_a_study_that_reads_them_counts_as_their_user(measure, tmp_path):
    measure()
    measure.store.set_user(tmp_path / "later", {"experiment": "x", "data": "y"})
    measure()
    runs = [list(entry.uses) for entry in entries(measure.store.root)]
    assert runs == [[str(tmp_path / "later")]] * 3


@pytest.mark.parametrize(
    ("group", "value"),
    [
        ("method", {"probe": {"steps": 2}}),
        ("evaluation", {"verdict": {"statistics": {"size": {"images": 6}}}}),
        ("network", {"width": 5}),
        ("precision", {"methods": {"trainer": "bf16"}}),
    ],
)
def test_other_settings_are_measured_anew(group, value, measure):
    measure()
    measure({**CONFIGURATION, group: value})
    assert len(measure.built) == 6


def test_another_seed_is_measured_anew(measure):
    measure()
    measure(seed=1)
    assert [seed for _, seed, _ in measure.built] == [0, 0, 0, 1, 1, 1]


def test_a_larger_bank_measures_only_its_new_networks(subject, trained, tmp_path):
    Measurement(subject, trained[:2], tmp_path)()
    larger = Measurement(subject, trained, tmp_path)
    assert len(larger().statistics["probe/norm"]) == 3
    assert [name for name, _, _ in larger.built] == [trained[2].path.name]


def test_the_bank_is_measured_at_the_epoch_of_the_study(measure):
    last = measure()
    measure.subject = replace(measure.subject, epoch=1)
    first = measure()
    assert len(measure.built) == 6
    assert not torch.equal(first.statistics["probe/norm"], last.statistics["probe/norm"])


def test_damaged_statistics_are_named(measure):
    measure()
    entry = next(measure.store.root.glob(f"*/{FILE}"))
    entry.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"statistics.safetensors is damaged .*: delete"):
        measure()


def test_without_a_bank_nothing_is_measured(subject, tmp_path):
    measure = Measurement(subject, [], tmp_path)
    assert not measure().statistics
    assert not measure.built
