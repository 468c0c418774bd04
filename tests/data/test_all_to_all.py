"""All-to-all backdoors: every class has a target of its own, for data and for all readers."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.builders import Blobs, image_data

from cwx.data.backdoor_plan import PlantedBackdoor
from cwx.data.corruption import Backdoor
from cwx.data.splits import ImageSet
from cwx.evaluations.backdoor.attack_success import AttackSuccess
from cwx.evaluations.backdoor.poison_detection import PoisonDetection
from cwx.evaluations.backdoor.revealed_trigger import RevealedTrigger
from cwx.explanations.images import Explanations
from cwx.functional.all_to_all import AllToAll
from cwx.functional.backdoor import AllToOne, CleanLabel, Patch
from cwx.functional.rng import stream
from cwx.report.corruption_line import corruption_line
from cwx.study.corruption_row import corruption_row
from cwx.training.plan import Plan

PATCH = Patch(size=2, corner="top-right", margin=0, first_pixel="white")
NAMES = ("cat", "dog", "frog", "horse")


def backdoor(*, rate=0.5, seed=0, target=None, variant=None):
    return Backdoor(
        trigger=PATCH, target=target, rate=rate, variant=variant or AllToAll(), seed=seed
    )


def image_set(classes, per_class=8):
    labels = torch.arange(classes).repeat(per_class)
    shape = (len(labels), 1, 4, 4)
    return ImageSet(torch.randint(1, 255, shape, generator=stream(0), dtype=torch.uint8), labels)


@given(st.integers(2, 12), st.sampled_from([0.25, 0.5, 1]), st.integers(0, 9))
def test_each_poisoned_image_gets_the_next_label_and_the_trigger(classes, rate, seed):
    clean = image_set(classes)
    result = backdoor(rate=rate, seed=seed)(clean, [f"class {i}" for i in range(classes)])
    poisoned = result.is_poisoned
    assert poisoned.sum() == rate * len(clean)
    expected = torch.where(poisoned, (clean.labels + 1) % classes, clean.labels)
    assert torch.equal(result.images.labels, expected)
    assert torch.equal(result.images.images[poisoned], PATCH.apply(clean.images[poisoned]))
    assert torch.equal(result.images.images[~poisoned], clean.images[~poisoned])
    assert result.backdoor.target is None
    assert torch.equal(result.backdoor.targets(clean.labels), (clean.labels + 1) % classes)


@given(st.integers(0, 9))
def test_a_lower_rate_poisons_a_part_of_the_same_images(seed):
    low, high = (backdoor(rate=rate, seed=seed)(image_set(4), NAMES) for rate in (0.25, 0.75))
    assert (high.is_poisoned | ~low.is_poisoned).all()


def test_targets_of_a_single_target_are_that_class():
    labels = torch.tensor([0, 3, 1])
    assert PlantedBackdoor(PATCH, 2).targets(labels).tolist() == [2, 2, 2]


def without(label):
    images = image_set(4)
    return images.at(images.labels != label)


REFUSED = {
    "corruption.target is 'dog', and .* set corruption.target=null": lambda: backdoor(target="dog")(
        image_set(4), NAMES
    ),
    "corruption.target is None, and no class has such a name": lambda: backdoor(variant=AllToOne())(
        image_set(4), NAMES
    ),
    "needs two classes or more, and there is only 'cat'": lambda: backdoor()(
        image_set(1), NAMES[:1]
    ),
    "the target class 'frog' .index 2. of the backdoor has no training": lambda: backdoor()(
        without(2), NAMES
    ),
    "the target class 'cat' .index 0. of the backdoor has no training": lambda: backdoor(
        target="cat", variant=AllToOne()
    )(without(0), NAMES),
    "corruption.rate is 0.5, and there are no training images": lambda: backdoor()(
        image_set(4).empty(), NAMES
    ),
    "give a target, or None and the targets by class": lambda: PlantedBackdoor(PATCH, None),
}


@pytest.mark.parametrize("message", REFUSED)
def test_an_impossible_backdoor_is_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


class Shifted(torch.nn.Module):
    """Knows the column of each class and, if the trigger is present, predicts the next class."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def forward(self, images):
        unit = self.data.normalization.denormalize(images)
        label = unit[:, :, 2:].mean((1, 2)).argmax(1)
        shape = images.shape[1:]
        off = (unit - PATCH.pattern(shape)).abs() * PATCH.mask(shape)
        has_trigger = off.flatten(1).amax(1) < 1e-4
        return torch.eye(3)[(label + has_trigger) % 3]


def poisoned_blobs():
    data = image_data(Blobs())
    data.corrupt(backdoor(rate=0.5))
    return data


def test_success_counts_each_image_at_the_target_of_its_own_class(subject):
    data = poisoned_blobs()
    always_first = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32, 3))
    torch.nn.init.zeros_(always_first[1].weight)
    always_first[1].bias.data = torch.tensor([1.0, 0.0, 0.0])
    networks = {"shifted": [Shifted(data)], "first": [always_first]}
    studied = replace(subject, data=data, evaluation_networks=networks)
    AttackSuccess().check(Plan(data=data, methods=[], held_out=0))
    metrics = AttackSuccess()(studied, {}).metrics
    assert metrics["attack_success/shifted/accuracy"] == 1
    assert metrics["attack_success/shifted/success"] == 1
    # Only images of the last class have the first one as their target.
    assert metrics["attack_success/first/success"] == pytest.approx(1 / 3)


def test_a_single_target_is_not_assumed_by_any_reader(subject):
    data = poisoned_blobs()
    with pytest.raises(ValueError, match="revealed_trigger compares the target class .* leave"):
        RevealedTrigger(images=None, seconds=False).check(Plan(data=data, methods=[], held_out=0))
    row = corruption_row(data)
    assert (row["target_class"], row["target_index"], row["targets"]) == ("", "", 3)
    assert corruption_line(row).startswith("backdoor with a target for each of the 3 classes; 30 ")
    shown = Explanations(data.normalization.from_bytes(data.clean.images[::20]), torch.arange(3))
    outcome = PoisonDetection(separation=0.75)(replace(subject, data=data), {"known": shown})
    assert 0 <= outcome.metrics["poison_detection/known/recall"] <= 1


def test_a_clean_label_backdoor_keeps_its_target():
    result = backdoor(target="dog", rate=0.1, variant=CleanLabel())(image_set(4), NAMES)
    assert result.backdoor.targets(torch.arange(4)).tolist() == [1, 1, 1, 1]
