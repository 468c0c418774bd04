"""Fidelity, its calibration by replicas and real data, and the agreement of predictions."""

import json
import math
from dataclasses import replace
from statistics import stdev

import pytest
import torch
from support import references
from support.builders import experts, image_data
from support.studies import CONFIGURATION, trainable_study

from cwx.evaluations.fidelity.evaluation import Fidelity
from cwx.evaluations.fidelity.real_data import RealData, lowest
from cwx.functional.augmentation import Strategy
from cwx.functional.inner_loop import Inner
from cwx.functional.trajectory_distance import squared_distance
from cwx.study.results import Results
from cwx.training.experts import EarlyExperts
from cwx.training.plan import Plan

NO_STEPS = Inner(steps=0, learning_rate=0.1, momentum=0.0, batch_size=None, augment=Strategy({}))


SETTINGS = {
    "source": "first", "inner": NO_STEPS, "span": 2, "start_min": 0, "start_max": 2,
    "calibrated": 0, "real_batch_size": None, "real_augment": None, "images": None,
}  # fmt: skip


def fidelity(**changes):
    return Fidelity(**{**SETTINGS, **changes})


@pytest.fixture(scope="module")
def sources(subject):
    return {"first": subject.real_images(1)}


def rows_of(outcome, seen):
    return [row for row in outcome.tables["fidelity"] if row["seen"] == seen]


def test_without_inner_steps_every_value_is_that_of_the_start(subject, sources):
    outcome = fidelity()(subject, sources)
    metrics = outcome.metrics
    assert metrics["fidelity/ratio"] == pytest.approx(1)
    assert metrics["fidelity/seen/ratio"] == pytest.approx(1)
    assert metrics["fidelity/agreement"] == metrics["fidelity/agreement/start"]
    assert metrics["fidelity/accuracy"] == metrics["fidelity/accuracy/start"]
    table = outcome.tables["fidelity"]
    assert [(row["seen"], row["start"]) for row in table] == [
        (seen, start) for seen in ("no", "yes") for start in range(3)
    ]
    states = [references.flat(subject.held_out[0].state(epoch).values()) for epoch in range(5)]
    reference = sum(squared_distance(states[k], states[k + 2]).item() for k in range(3)) / 3
    assert metrics["fidelity/reference"] == pytest.approx(reference)


def test_what_is_not_measured_has_no_metric(subject, sources):
    metrics = fidelity()(subject, sources).metrics
    assert not {"fidelity/replica", "fidelity/real", "fidelity/ratio/std"} & set(metrics)


def test_the_ratio_has_a_standard_deviation_over_held_out_experts(subject, sources):
    inner = Inner(steps=3, learning_rate=0.3, momentum=0.0, batch_size=None, augment=Strategy({}))
    both = replace(subject, early_held_out=subject.trajectories[:1])
    outcome = fidelity(inner=inner)(both, sources)
    ratios = []
    for expert in (0, 1):
        rows = [row for row in rows_of(outcome, "no") if row["expert"] == expert]
        matched, reference = (sum(row[name] for row in rows) for name in ("matched", "reference"))
        ratios.append(matched / reference)
    assert ratios[0] != ratios[1]
    assert outcome.metrics["fidelity/ratio/std"] == pytest.approx(stdev(ratios))


@pytest.mark.filterwarnings("ignore")
def test_steps_that_diverge_have_no_accuracy_and_no_agreement(subject, sources):
    """A network of NaN would predict the first class. The start remains measured."""
    inner = Inner(steps=3, learning_rate=1e30, momentum=0.0, batch_size=None, augment=Strategy({}))
    both = replace(subject, early_held_out=subject.trajectories[:1])
    outcome = fidelity(inner=inner)(both, sources)
    for name in ("ratio", "ratio/std", "accuracy", "agreement"):
        assert not math.isfinite(outcome.metrics[f"fidelity/{name}"]), name
    assert outcome.metrics["fidelity/accuracy/start"] > 0
    assert all(math.isnan(row["ratio_std"]) for row in outcome.tables["fidelity_epochs"][:3])


def test_a_replica_that_equals_the_expert_has_ratio_zero_and_full_agreement(subject, sources):
    (expert,) = subject.held_out
    # An expert of four epochs ends where its own segment from epoch 2 ends.
    same = replace(subject, replicas={(expert.path.name, 2): expert})
    rows = {row["start"]: row for row in rows_of(fidelity()(same, sources), "no")}
    assert expert.epochs == 4
    assert rows[2]["replica"] == 0
    assert rows[2]["agreement_replica"] == 1
    assert rows[0]["replica"] == rows[1]["replica"] == ""


def test_calibration_compares_like_with_like(subject, sources):
    """Ratios of means over the same starts: steps of the size of the replica have its ratio.

    A mean of ratios counts starts from which the expert hardly moves as much as others, and the
    starts of the replicas alone are not those of all.
    """
    (expert,) = subject.held_out
    inner = Inner(steps=3, learning_rate=0.3, momentum=0.0, batch_size=None, augment=Strategy({}))
    # Of four epochs: from the start of epoch 2 the same end, from that of epoch 1 another.
    replicas = {(expert.path.name, start): expert for start in (1, 2)}
    outcome = fidelity(inner=inner)(replace(subject, replicas=replicas), sources)
    metrics, rows = outcome.metrics, rows_of(outcome, "no")
    states = [references.flat(expert.state(epoch).values()) for epoch in range(5)]
    moved = [squared_distance(states[k], states[k + 2]).item() for k in (1, 2)]
    ended = [squared_distance(states[4], states[k + 2]).item() for k in (1, 2)]
    assert metrics["fidelity/replica"] == pytest.approx(sum(ended) / sum(moved))
    assert metrics["fidelity/replica"] != pytest.approx((ended[0] / moved[0]) / 2)
    matched = sum(row["matched"] for row in rows[1:])
    assert metrics["fidelity/ratio/calibrated"] == pytest.approx(matched / sum(moved))
    agreement = sum(row["agreement"] for row in rows[1:]) / 2
    assert metrics["fidelity/agreement/calibrated"] == pytest.approx(agreement)
    assert metrics["fidelity/ratio"] != pytest.approx(metrics["fidelity/ratio/calibrated"])


@pytest.mark.parametrize(
    ("last", "calibrated", "expected"),
    [(20, 3, [3, 10, 17]), (0, 3, [0]), (1, 1, [1]), (9, 0, []), (4, 99, [0, 1, 2, 3, 4])],
)
def test_calibrated_starts_stand_for_the_whole_range(last, calibrated, expected):
    assert fidelity(start_max=last, calibrated=calibrated).replica_starts() == expected


def equal_states(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class RecordSubject(Fidelity):
    """Records the subject that it receives."""

    def __call__(self, subject, sources):
        self.subject = subject
        return super().__call__(subject, sources)


class RealImages:
    """A method whose explanations are real images."""

    def __init__(self, *, subject, seed, stage):
        self.subject = subject

    def explanations(self):
        return self.subject.real_images(1)


def test_replicas_train_held_out_experts_again_with_other_batches(tmp_path):
    measure = RecordSubject(**SETTINGS | {"span": 1, "start_max": 0, "calibrated": 5})
    study = trainable_study(
        tmp_path / "store", held_out=[4], early=EarlyExperts(seeds=[], epochs=1, held_out=[7])
    )
    study.recipe = lambda *, networks, data, seeds, epochs=2, **_: experts(
        data, seeds, networks=networks, epochs=epochs
    )
    study.method, study.evaluation = {"first": RealImages}, {"fidelity": measure}
    study.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    subject = measure.subject
    held_out = [*subject.held_out, *subject.early_held_out]
    assert [t.identity["seed"] for t in held_out] == [4, 7]
    assert set(subject.replicas) == {(t.path.name, 0) for t in held_out}
    for expert in held_out:
        replica = subject.replicas[expert.path.name, 0]
        assert equal_states(replica.state(0), expert.state(0))
        assert not equal_states(replica.state(1), expert.state(1))
        assert replica.epochs == 1
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < metrics["fidelity/replica"] < 1


def test_real_data_are_drawn_without_repetition_in_an_epoch_and_by_the_key():
    data = image_data()
    real = RealData(
        images=data.splits.train, normalization=data.normalization, batch_size=4, augment=None
    )
    per_epoch = len(data.splits.train) // 4
    batch = real.descent(per_epoch, key=(1,)).batch
    images = torch.cat([batch(torch.empty(0), step)[0] for step in range(per_epoch)])
    assert len({tuple(image.flatten().tolist()) for image in images}) == len(
        {
            tuple(i.flatten().tolist())
            for i in data.normalization.from_bytes(data.splits.train.images)
        }
    )
    again, other = (real.descent(1, key=(key,)).batch(torch.empty(0), 0)[0] for key in (1, 2))
    assert torch.equal(again, images[:4])
    assert not torch.equal(other, images[:4])


def test_the_real_ratio_is_that_of_the_best_learning_rate(subject, sources):
    inner = Inner(steps=4, learning_rate=1e-3, momentum=0.0, batch_size=None, augment=Strategy({}))
    outcome = fidelity(inner=inner, real_batch_size=8, calibrated=2)(subject, sources)
    assert 0 < outcome.metrics["fidelity/real"] < 1
    rows = rows_of(outcome, "no")
    assert [row["start"] for row in rows if row["real"] != ""] == [0, 2]
    assert all(row["real_rate"] > 1e-3 for row in rows if row["real"] != "")
    assert all(row["real"] == "" for row in rows_of(outcome, "yes"))


@pytest.mark.parametrize("optimum", [0.01, 0.3, 1.0, 7.0, 100.0])
def test_the_search_reaches_the_minimum_within_half_a_doubling(optimum):
    rate = lowest(lambda x: (torch.tensor(x / optimum).log2() ** 2).item(), 1.0)
    assert abs(torch.tensor(rate / optimum).log2().item()) <= 0.25 + 1e-6


def test_the_search_passes_values_that_are_not_finite():
    assert lowest(lambda x: float("nan") if x > 1 else -x, 0.25) == 1.0


def test_fidelity_refuses_a_missing_source_and_missing_held_out_experts(subject, sources):
    measure = fidelity(source="none")
    with pytest.raises(
        ValueError, match="'none', but this study has no such method that makes images"
    ):
        measure.check(Plan(data=subject.data, methods=["first"], held_out=1))
    with pytest.raises(ValueError, match="give experts.held_out at least one seed"):
        measure.check(Plan(data=subject.data, methods=["none"], held_out=0))
    with pytest.raises(ValueError, match="lower start_max to 2"):
        fidelity(start_max=9)(subject, sources)


def test_an_early_held_out_expert_must_reach_the_segments(subject):
    plan = Plan(
        data=subject.data, methods=["first"], held_out=1,
        held_out_epochs={"experts.early.epochs": 3},
    )  # fmt: skip
    with pytest.raises(ValueError, match="exceeds the 3 epochs of experts.early.epochs"):
        fidelity().check(plan)
