"""Clean accuracy and accuracy under attack, of networks with known decision boundaries."""

from dataclasses import replace

import pytest
import torch
from support.builders import train_experts
from torch import nn

from cwx.evaluations.accuracy import Accuracy
from cwx.functional.attacks import Attack, Linf
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.plan import Plan
from cwx.training.subject import Subject

FGS = Attack(ball=Linf(), epsilon=4, scale=255, step=4, steps=1, random_start=False, targeted=False)
PGD = replace(FGS, step=1, steps=8, random_start=True)


def measure_accuracy(subject, images=None, top=(1,), **attacks):
    return Accuracy(attacks=attacks, images=images, evaluation_networks=False, top=top)(subject, {})


def test_accuracy_is_measured_for_every_network_and_attack(subject):
    outcome = measure_accuracy(subject, fgs=FGS, pgd=PGD)
    assert set(outcome.metrics) == {
        f"accuracy/{network}/{attack}"
        for network in ("expert", "held-out")
        for attack in ("clean", "fgs", "pgd")
    }
    assert all(0 <= number <= 1 for number in outcome.metrics.values())
    assert [(row["network"], row["attack"]) for row in outcome.tables["accuracy"]] == [
        (network, attack)
        for network in ("expert", "held-out")
        for attack in ("clean", "fgs", "pgd")
    ]


def test_accuracy_falls_to_zero_with_increasing_epsilon(subject):
    sizes = {f"at-{e}": replace(PGD, epsilon=e, step=e / 4) for e in (0, 30, 60, 100)}
    metrics = measure_accuracy(subject, **sizes).metrics
    accuracies = [metrics[f"accuracy/expert/{name}"] for name in sizes]
    assert accuracies[0] == metrics["accuracy/expert/clean"] == 1
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] == 0


def test_epsilon_is_on_the_0_255_scale(data, tmp_path):
    """Two classes differ by one pixel: an attack succeeds iff epsilon crosses the threshold."""

    class Threshold(nn.Module):
        """Predicts 1 if the first pixel is below 100 of 255, else 0."""

        def __init__(self, **shape):
            super().__init__()
            self.slope = nn.Parameter(torch.tensor(20.0))

        def forward(self, images):
            level = data.normalization.denormalize(images)[:, 0, 0, 0]
            lead = self.slope * (level - 100 / 255)
            return torch.stack([lead, -lead, lead - 99], 1)

    (trajectory,) = train_experts(
        data, [0], TrajectoryStore(tmp_path), network=Threshold, epochs=1,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
    )  # fmt: skip
    subject = Subject(
        data=data, factory=Threshold, trajectories=[trajectory], held_out=[], evaluation_networks={}
    )
    test = data.splits.test
    levels, labels = test.images[:, 0, 0, 0].int(), test.labels
    for epsilon in (4, 20):
        attack = replace(FGS, epsilon=epsilon, step=epsilon)
        metrics = measure_accuracy(subject, fgs=attack).metrics
        for name, by in (("clean", 0), ("fgs", epsilon)):
            correct = ((labels == 0) & (levels - by > 100)) | ((labels == 1) & (levels + by < 100))
            assert metrics[f"accuracy/expert/{name}"] == correct.double().mean().item()


def test_top_k_accuracy_counts_labels_among_the_k_highest_logits(subject):
    strong = replace(PGD, epsilon=60, step=15)
    outcome = measure_accuracy(subject, top=(1, 2, 3), pgd=strong)
    alone = measure_accuracy(subject, pgd=strong).metrics
    assert alone == {name: outcome.metrics[name] for name in alone}
    for name, first in alone.items():
        second, third = (outcome.metrics[f"{name}/top{k}"] for k in (2, 3))
        assert first <= second <= third == 1
    network, data = subject.experts()["expert"][0], subject.data
    with torch.no_grad():
        order = [
            network(images).argsort(1, descending=True) for images, *_ in data.test_batches(None)
        ]
    ranks = (torch.cat(order) == data.splits.test.labels[:, None]).int().argmax(1)
    row = outcome.tables["accuracy_networks"][0]
    for column, k in (("accuracy", 1), ("top2", 2), ("top3", 3)):
        assert row[column] == (ranks < k).double().mean().item()
    assert {"top2", "top2_std"} <= outcome.tables["accuracy"][0].keys()
    attacked = "accuracy/expert/pgd"
    assert outcome.metrics[attacked] < outcome.metrics[f"{attacked}/top2"] < 1


def test_fine_tuned_networks_are_measured_like_experts(subject):
    fine_tuned = replace(subject, fine_tuned=subject.held_out, held_out=())
    held_out = measure_accuracy(subject, fgs=FGS).metrics
    assert measure_accuracy(fine_tuned, fgs=FGS).metrics == {
        name.replace("held-out", "fine-tuned"): number for name, number in held_out.items()
    }


def test_k_above_the_number_of_classes_is_refused(data):
    plan = Plan(data=data, methods=[], held_out=0)
    Accuracy(attacks={}, images=None, evaluation_networks=False, top=[1, 3]).check(plan)
    with pytest.raises(ValueError, match=r"accuracy.top has 5, and the data have 3 classes"):
        Accuracy(attacks={}, images=None, evaluation_networks=False, top=[1, 5]).check(plan)


def test_results_are_reproducible(subject):
    attack = replace(PGD, epsilon=50, step=10)
    assert (
        measure_accuracy(subject, pgd=attack).metrics
        == measure_accuracy(subject, pgd=attack).metrics
    )


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
        ({"attacks": {"clean": FGS}}, "evaluation.accuracy.attacks.clean: clean accuracy is"),
        ({"attacks": {"x": None}}, "evaluation.accuracy.attacks.x: clean accuracy is"),
        (
            {"attacks": {"x": replace(FGS, targeted=True)}},
            "set evaluation.accuracy.attacks.x.targeted to false",
        ),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Accuracy(
            **{
                "attacks": {},
                "images": None,
                "evaluation_networks": False,
                "top": [1],
                **settings,
            }
        )
