"""Accuracy under attack, of networks whose robustness is known."""

from dataclasses import replace

import pytest
import torch
from support.builders import trained
from torch import nn

from cwx.evaluations.accuracy import Accuracy
from cwx.functional.attacks import Attack, Linf
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.plan import Plan
from cwx.training.subject import Subject

FGS = Attack(ball=Linf(), epsilon=4, scale=255, step=4, steps=1, random_start=False, targeted=False)
PGD = replace(FGS, step=1, steps=8, random_start=True)


def measured(subject, images=None, top=(1,), **attacks):
    return Accuracy(attacks=attacks, images=images, top=top)(subject, {})


def test_every_network_meets_every_attack(subject):
    outcome = measured(subject, fgs=FGS, pgd=PGD)
    assert set(outcome.metrics) == {
        f"accuracy/{network}/{attack}"
        for network in ("expert", "held-out")
        for attack in ("clean", "fgs", "pgd")
    }
    assert all(0 <= number <= 1 for number in outcome.metrics.values())
    assert [(row["network"], row["attack"]) for row in outcome.tables["robustness"]] == [
        (network, attack)
        for network in ("expert", "held-out")
        for attack in ("clean", "fgs", "pgd")
    ]


def test_accuracy_falls_with_epsilon_to_nothing(subject):
    sizes = {f"at-{e}": replace(PGD, epsilon=e, step=e / 4) for e in (0, 30, 60, 100)}
    metrics = measured(subject, **sizes).metrics
    found = [metrics[f"accuracy/expert/{name}"] for name in sizes]
    assert found[0] == metrics["accuracy/expert/clean"] == 1
    assert found == sorted(found, reverse=True)
    assert found[-1] == 0


def test_the_attack_is_on_pixels_of_0_to_255(data, tmp_path):
    """Two classes told apart by one pixel: only what moves it past the threshold fools it."""

    class Threshold(nn.Module):
        """Says 1 where the first pixel is below 100 of 255, else 0."""

        def __init__(self, **shape):
            super().__init__()
            self.slope = nn.Parameter(torch.tensor(20.0))

        def forward(self, images):
            level = data.normalization.denormalize(images)[:, 0, 0, 0]
            lead = self.slope * (level - 100 / 255)
            return torch.stack([lead, -lead, lead - 99], 1)

    (trajectory,) = trained(
        data, [0], TrajectoryStore(tmp_path), network=Threshold, epochs=1,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
    )  # fmt: skip
    subject = Subject(
        data=data, factory=Threshold, trajectories=[trajectory], held_out=[], networks={}
    )
    test = data.splits.test
    levels, labels = test.images[:, 0, 0, 0].int(), test.labels
    for epsilon in (4, 20):
        attack = replace(FGS, epsilon=epsilon, step=epsilon)
        metrics = measured(subject, fgs=attack).metrics
        for name, by in (("clean", 0), ("fgs", epsilon)):
            right = ((labels == 0) & (levels - by > 100)) | ((labels == 1) & (levels + by < 100))
            assert metrics[f"accuracy/expert/{name}"] == right.double().mean().item()


def test_a_label_may_be_among_the_highest_logits(subject):
    strong = replace(PGD, epsilon=60, step=15)
    outcome = measured(subject, top=(1, 2, 3), pgd=strong)
    alone = measured(subject, pgd=strong).metrics
    assert alone == {name: outcome.metrics[name] for name in alone}
    for name, first in alone.items():
        second, third = (outcome.metrics[f"{name}/top{k}"] for k in (2, 3))
        assert first <= second <= third == 1
    network, data = subject.experts()["expert"][0], subject.data
    with torch.no_grad():
        order = [
            network(images).argsort(1, descending=True) for images, *_ in data.test_batches(None)
        ]
    places = (torch.cat(order) == data.splits.test.labels[:, None]).int().argmax(1)
    row = outcome.tables["robustness_networks"][0]
    for column, k in (("accuracy", 1), ("top2", 2), ("top3", 3)):
        assert row[column] == (places < k).double().mean().item()
    assert {"top2", "top2_std"} <= outcome.tables["robustness"][0].keys()
    attacked = "accuracy/expert/pgd"
    assert outcome.metrics[attacked] < outcome.metrics[f"{attacked}/top2"] < 1


def test_a_network_refined_is_measured_beside_what_it_was(subject):
    both = replace(subject, fine_tuned=subject.held_out, held_out=())
    apart = measured(subject, fgs=FGS).metrics
    assert measured(both, fgs=FGS).metrics == {
        name.replace("held-out", "fine-tuned"): number for name, number in apart.items()
    }


def test_more_logits_than_classes_are_refused_beforehand(data):
    plan = Plan(data=data, methods=[], held_out=0)
    Accuracy(attacks={}, images=None, top=[1, 3]).check(plan)
    with pytest.raises(ValueError, match=r"robustness.top has 5, and the data have 3 classes"):
        Accuracy(attacks={}, images=None, top=[1, 5]).check(plan)


def test_a_run_repeats(subject):
    attack = replace(PGD, epsilon=50, step=10)
    assert measured(subject, pgd=attack).metrics == measured(subject, pgd=attack).metrics


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": 0}, "evaluation.accuracy.images is 0: give 1 or more, or null for all"),
        (
            {"top": []},
            r"evaluation.accuracy.top is \[\]: give numbers of logits, 1 or more, each",
        ),
        ({"top": [0, 1]}, r"evaluation.accuracy.top is \[0, 1\]: give numbers"),
        ({"top": [5, 5]}, r"evaluation.accuracy.top is \[5, 5\]: give numbers"),
        ({"attacks": {"clean": FGS}}, "evaluation.accuracy.attacks.clean: clean images are"),
        ({"attacks": {"x": None}}, "evaluation.accuracy.attacks.x: clean images are"),
        (
            {"attacks": {"x": replace(FGS, targeted=True)}},
            "set evaluation.accuracy.attacks.x.targeted to false",
        ),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Accuracy(**{"attacks": {}, "images": None, "top": [1], **settings})
