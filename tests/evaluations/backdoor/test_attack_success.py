"""Whether a backdoor works is told from the right images and the right labels."""

from dataclasses import replace

import pytest
import torch
from support.builders import image_data, small_mlp, trained

from cwx.data.corruption import Backdoor, LabelNoise, NoCorruption
from cwx.evaluations.backdoor.attack_success import AttackSuccess
from cwx.functional.backdoor import AllToOne, Patch
from cwx.functional.label_noise import Uniform
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.plan import Plan
from cwx.training.subject import Subject

PATCH = Patch(size=2, corner="top-right", margin=0)
RIGHT = 2


class Constant(torch.nn.Module):
    """Sees one class in everything."""

    def __init__(self, label):
        super().__init__()
        self.label = label

    def forward(self, images):
        return torch.eye(3)[torch.full((len(images),), self.label)]


class Obedient(torch.nn.Module):
    """Sees the target where the trigger is, else the first class; it looks at bytes."""

    def __init__(self, normalization):
        super().__init__()
        self.normalization = normalization

    def forward(self, images):
        unit = self.normalization.denormalize(images)
        shape = images.shape[1:]
        off = (unit - PATCH.pattern(shape)).abs() * PATCH.mask(shape)
        return torch.eye(3)[(off.flatten(1).amax(1) < 1e-4).long() * RIGHT]


def planted(rate):
    data = image_data()
    data.corrupt(Backdoor(trigger=PATCH, target="right", rate=rate, variant=AllToOne(), seed=0))
    return data


def with_judges(subject, data, **evaluation_networks):
    return replace(
        subject,
        data=data,
        evaluation_networks={
            name: [evaluation_network] for name, evaluation_network in evaluation_networks.items()
        },
    )


def test_no_image_of_the_target_class_counts_as_success(subject):
    data = planted(rate=0)
    evaluation_networks = {f"always-{label}": Constant(label) for label in range(3)}
    evaluation_networks["obedient"] = Obedient(data.normalization)
    metrics = AttackSuccess()(with_judges(subject, data, **evaluation_networks), {}).metrics
    for label in range(3):
        assert metrics[f"attack_success/always-{label}/accuracy"] == pytest.approx(1 / 3)
        assert metrics[f"attack_success/always-{label}/success"] == (label == RIGHT)
    assert metrics["attack_success/obedient/success"] == 1
    assert metrics["attack_success/obedient/accuracy"] == pytest.approx(1 / 3)


def test_experts_are_judged_image_by_image(subject):
    data = planted(rate=0.25)
    outcome = AttackSuccess()(with_judges(subject, data), {})
    rows = outcome.tables["backdoor_networks"]
    assert [row["network"] for row in rows] == ["expert", "expert", "held-out"]
    test = image_data().splits.test
    for row, trajectory in zip(rows, [*subject.trajectories, *subject.held_out], strict=True):
        network, right, led, others = subject.trained(trajectory), 0, 0, 0
        for image, label in zip(test.images, test.labels, strict=True):
            seen, triggered = (
                network(data.normalization.from_bytes(bytes_)).argmax()
                for bytes_ in (image[None], PATCH.apply(image[None]))
            )
            right += int(seen == label)
            if label != RIGHT:
                others += 1
                led += int(triggered == RIGHT)
        assert row["accuracy"] == right / len(test)
        assert row["success"] == led / others
    for name in ("accuracy", "success"):
        expected = sum(float(row[name]) for row in rows[:2]) / 2
        assert outcome.metrics[f"attack_success/expert/{name}"] == pytest.approx(expected)


def test_a_network_learns_the_backdoor_and_a_clean_one_has_none(tmp_path):
    success = {}
    for rate in (0, 0.3):
        data = planted(rate)
        trajectories = trained(data, [0, 1], TrajectoryStore(tmp_path / str(rate)), at_once=2)
        poisoned = Subject(
            data=data,
            factory=small_mlp,
            trajectories=trajectories[:1],
            held_out=trajectories[1:],
            evaluation_networks={},
        )
        success[rate] = AttackSuccess()(poisoned, {}).metrics["attack_success/expert/success"]
    assert success[0] < 0.5 < success[0.3]


@pytest.mark.parametrize(
    "corruption", [NoCorruption(), LabelNoise(kind=Uniform(), rate=0.5, seed=0)]
)
def test_a_study_without_a_backdoor_is_refused(corruption):
    data = image_data()
    data.corrupt(corruption)
    with pytest.raises(ValueError, match="plants none: choose one such as corruption=badnets"):
        AttackSuccess().check(Plan(data=data, methods=[], held_out=0))


def test_test_images_of_the_target_alone_are_refused():
    data = planted(rate=0.25)
    data.splits.test.labels.fill_(RIGHT)
    with pytest.raises(ValueError, match="other than the target 'right'"):
        AttackSuccess().check(Plan(data=data, methods=[], held_out=0))
