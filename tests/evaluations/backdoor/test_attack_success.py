"""Clean accuracy and attack success of networks with known predictions."""

from dataclasses import replace

import pytest
import torch
from support.builders import image_data, small_mlp, train_experts

from cwx.data.corruption import Backdoor, LabelNoise, NoCorruption
from cwx.evaluations.backdoor.attack_success import AttackSuccess
from cwx.functional.backdoor import AllToOne, Patch
from cwx.functional.label_noise import Uniform
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.plan import Plan
from cwx.training.subject import Subject

PATCH = Patch(size=2, corner="top-right", margin=0, first_pixel="white")
TARGET = 2


class Constant(torch.nn.Module):
    """Predicts one class for all images."""

    def __init__(self, label):
        super().__init__()
        self.label = label

    def forward(self, images):
        return torch.eye(3)[torch.full((len(images),), self.label)]


class Backdoored(torch.nn.Module):
    """Predicts the target if the trigger is present, else the first class."""

    def __init__(self, normalization):
        super().__init__()
        self.normalization = normalization

    def forward(self, images):
        unit = self.normalization.denormalize(images)
        shape = images.shape[1:]
        off = (unit - PATCH.pattern(shape)).abs() * PATCH.mask(shape)
        return torch.eye(3)[(off.flatten(1).amax(1) < 1e-4).long() * TARGET]


def poisoned_data(rate):
    data = image_data()
    data.corrupt(Backdoor(trigger=PATCH, target="right", rate=rate, variant=AllToOne(), seed=0))
    return data


def with_networks(subject, data, **evaluation_networks):
    return replace(
        subject,
        data=data,
        evaluation_networks={name: [network] for name, network in evaluation_networks.items()},
    )


def test_success_is_measured_on_images_of_other_classes_only(subject):
    data = poisoned_data(rate=0.25)
    evaluation_networks = {f"always-{label}": Constant(label) for label in range(3)}
    evaluation_networks["backdoored"] = Backdoored(data.normalization)
    metrics = AttackSuccess()(with_networks(subject, data, **evaluation_networks), {}).metrics
    for label in range(3):
        assert metrics[f"attack_success/always-{label}/accuracy"] == pytest.approx(1 / 3)
        assert metrics[f"attack_success/always-{label}/success"] == (label == TARGET)
    assert metrics["attack_success/backdoored/success"] == 1
    assert metrics["attack_success/backdoored/accuracy"] == pytest.approx(1 / 3)


def test_metrics_equal_those_counted_image_by_image(subject):
    data = poisoned_data(rate=0.25)
    outcome = AttackSuccess()(with_networks(subject, data), {})
    rows = outcome.tables["attack_success_networks"]
    assert [row["network"] for row in rows] == ["expert", "expert", "held-out"]
    test = image_data().splits.test
    for row, trajectory in zip(rows, [*subject.trajectories, *subject.held_out], strict=True):
        network, correct, hits, others = subject.trained_network(trajectory), 0, 0, 0
        for image, label in zip(test.images, test.labels, strict=True):
            clean, triggered = (
                network(data.normalization.from_bytes(bytes_)).argmax()
                for bytes_ in (image[None], PATCH.apply(image[None]))
            )
            correct += int(clean == label)
            if label != TARGET:
                others += 1
                hits += int(triggered == TARGET)
        assert row["accuracy"] == correct / len(test)
        assert row["success"] == hits / others
    for name in ("accuracy", "success"):
        expected = sum(float(row[name]) for row in rows[:2]) / 2
        assert outcome.metrics[f"attack_success/expert/{name}"] == pytest.approx(expected)


def test_a_network_learns_the_backdoor_and_a_clean_one_has_none(tmp_path):
    success = {}
    for rate in (0.02, 0.3):
        data = poisoned_data(rate)
        trajectories = train_experts(data, [0, 1], TrajectoryStore(tmp_path / str(rate)), at_once=2)
        poisoned = Subject(
            data=data,
            factory=small_mlp,
            trajectories=trajectories[:1],
            held_out=trajectories[1:],
            evaluation_networks={},
        )
        success[rate] = AttackSuccess()(poisoned, {}).metrics["attack_success/expert/success"]
    assert success[0.02] < 0.5 < success[0.3]


@pytest.mark.parametrize(
    "corruption", [NoCorruption(), LabelNoise(kind=Uniform(), rate=0.5, seed=0)]
)
def test_a_study_without_a_backdoor_is_refused(corruption):
    data = image_data()
    data.corrupt(corruption)
    with pytest.raises(
        ValueError, match="training images have none: choose one such as corruption=badnets"
    ):
        AttackSuccess().check(Plan(data=data, methods=[], held_out=0))


def test_a_test_set_with_only_the_target_class_is_refused():
    data = poisoned_data(rate=0.25)
    data.splits.test.labels.fill_(TARGET)
    with pytest.raises(ValueError, match="other than the target 'right'"):
        AttackSuccess().check(Plan(data=data, methods=[], held_out=0))


def test_test_images_that_all_show_the_trigger_are_refused():
    data = poisoned_data(rate=0.25)
    data.splits.test.images.copy_(PATCH.apply(data.splits.test.images))
    with pytest.raises(ValueError, match=r"no pixel of the 16 test images .* 'right' .index 2."):
        AttackSuccess().check(Plan(data=data, methods=[], held_out=0))
