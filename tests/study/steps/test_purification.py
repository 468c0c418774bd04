"""Poisoned images are found from what explanations show, and only what they show."""

from dataclasses import replace

import pytest
import torch
from support.builders import Blobs, BlobsWithoutTraining

from cwx.data.corruption import Backdoor
from cwx.data.datamodule import ImageData
from cwx.data.datasets.digits import Digits
from cwx.data.splits import ImageSet, Splits
from cwx.evaluations.backdoor.poison_detection import PoisonDetection
from cwx.evaluations.backdoor.suspects import check_suspicions, suspicions
from cwx.explanations.images import Explanations
from cwx.functional.backdoor import AllToOne, CleanLabel, Patch
from cwx.study.steps.purification import NoPurification, RevealedFilter
from cwx.training.plan import Plan

PATCH = Patch(size=2, corner="top-right", margin=0, first_pixel="white")
TARGET = 1


class ManyBlobs(Blobs):
    def load(self):
        return Splits(self._set(80, seed=0), self._set(8, seed=1), self.classes)


def loaded(source):
    data = ImageData(source=source, mean=0.5, std=0.5, batch_size=7, per_class=None, total=None)
    data.setup()
    return data


@pytest.fixture
def poisoned(subject):
    data = loaded(ManyBlobs())
    data.corrupt(Backdoor(trigger=PATCH, target=TARGET, rate=0.1, variant=CleanLabel(), seed=0))
    return replace(subject, data=data)


def test_without_training_images_nothing_can_be_suspected():
    plan = Plan(data=loaded(BlobsWithoutTraining()), methods=["distill"], held_out=0)
    with pytest.raises(ValueError, match="purification needs training images.*: leave it out"):
        RevealedFilter(source="distill", separation=0.75).check(plan)


def grey_with_trigger(data, target=TARGET):
    """One grey image a class, and the trigger in the target's."""
    images = torch.full((3, *data.image_shape), 128, dtype=torch.uint8)
    images[target] = PATCH.apply(images[target : target + 1])[0]
    return Explanations(data.normalization.from_bytes(images), torch.arange(3))


def test_what_carries_the_revealed_trigger_is_suspected(poisoned):
    found = RevealedFilter(source="known", separation=0.75)(
        poisoned, {"known": grey_with_trigger(poisoned.data)}
    )
    assert found.label == TARGET
    assert torch.equal(found.suspected, poisoned.data.corrupted.is_corrupted)
    assert found.separation[TARGET] == max(found.separation.values()) > 0.9


def test_clean_images_arouse_no_suspicion():
    data = loaded(ManyBlobs())
    found = suspicions(data, {"known": grey_with_trigger(data)}, separation=0.75)["known"]
    assert found.label is None
    assert not found.suspected.any()
    assert set(found.separation) == {0, 1, 2}


def test_images_of_other_classes_are_found_among_real_digits():
    """A backdoor from all classes to one, revealed by what it is taught with."""
    data = loaded(Digits())
    data.corrupt(Backdoor(trigger=PATCH, target=3, rate=0.05, variant=AllToOne(), seed=0))
    train, normalized = data.splits.train, data.normalization.from_bytes
    means = [train.images[train.labels == c].float().mean(0) for c in range(10)]
    source = Explanations(normalized(torch.stack(means)), torch.arange(10))
    found = suspicions(data, {"means": source}, separation=0.75)["means"]
    is_corrupted = data.corrupted.is_corrupted
    assert found.label == 3
    assert (found.suspected & is_corrupted).sum() > 0.9 * max(
        found.suspected.sum(), is_corrupted.sum()
    )


def test_too_few_images_and_a_single_class_give_no_suspicion(data):
    source = {"known": grey_with_trigger(data)}
    assert suspicions(data, source, separation=0)["known"].separation == {}
    alone = loaded(ManyBlobs())
    alone.splits.train.labels.fill_(1)
    assert suspicions(alone, source, separation=0)["known"].separation == {}


def test_images_too_large_for_a_covariance_are_refused():
    data = loaded(ManyBlobs())
    data._splits = replace(
        data.splits, train=ImageSet(torch.zeros(2, 3, 128, 128).byte(), torch.tensor([0, 1]))
    )
    with pytest.raises(ValueError, match="purification would take 90 GiB .* 3x128x128: leave"):
        check_suspicions(data, 0.75, "purification")


def test_a_source_of_one_class_says_nothing(poisoned):
    lone = grey_with_trigger(poisoned.data)
    lone = Explanations(lone.images[:1], lone.labels[:1])
    found = suspicions(poisoned.data, {"lone": lone}, separation=0.75)["lone"]
    assert found.label is None
    assert found.separation == {}


def test_sources_are_told_what_they_must_be(data):
    plan = Plan(data=data, methods=["distill"], held_out=0)
    RevealedFilter(source="distill", separation=0.75).check(plan)
    with pytest.raises(ValueError, match="purification.source is 'x'.*one of distill"):
        RevealedFilter(source="x", separation=0.75).check(plan)
    with pytest.raises(ValueError, match="purification.separation is 2"):
        RevealedFilter(source="distill", separation=2).check(plan)


def test_nothing_is_purified_unless_asked(poisoned):
    assert NoPurification()(poisoned, {}) is None


def test_detection_counts_what_is_right(poisoned):
    known, is_corrupted = grey_with_trigger(poisoned.data), poisoned.data.corrupted.is_corrupted
    outcome = PoisonDetection(separation=0.75)(poisoned, {"known": known})
    metrics = outcome.metrics
    assert (
        metrics["poison_detection/known/precision"] == metrics["poison_detection/known/recall"] == 1
    )
    rows = {row["source"]: row for row in outcome.tables["poison_detection"]}
    assert list(rows) == ["known", "real", "train", "mean"]
    assert rows["known"]["suspected"] == int(is_corrupted.sum())
    assert rows["known"]["suspected_class"] == "middle"
    assert rows["known"]["first_precision"] == rows["known"]["first_recall"] == 1
    # Clean test images show no trigger.
    assert rows["real"]["first_precision"] < 1
    assert len(outcome.tables["poison_detection_classes"]) == len(rows) * 3
    assert list(outcome.figures) == ["poison_detection_known"]


def test_precision_and_recall_are_of_the_suspected(poisoned):
    """The truth is changed: half of what carries the trigger was never poisoned, say."""
    data = poisoned.data
    is_corrupted = data.corrupted.is_corrupted.clone()
    carriers = is_corrupted.nonzero()[:, 0]
    is_corrupted[carriers[::2]] = False
    is_corrupted[(data.splits.train.labels == 0).nonzero()[:4, 0]] = True
    data.corrupted = replace(data.corrupted, is_corrupted=is_corrupted)
    metrics = PoisonDetection(separation=0.75)(poisoned, {"known": grey_with_trigger(data)}).metrics
    right = len(carriers) - len(carriers[::2])
    assert metrics["poison_detection/known/precision"] == right / len(carriers)
    assert metrics["poison_detection/known/recall"] == right / (right + 4)


def test_detection_among_constructed_images_is_refused(poisoned):
    """They are others than those that were poisoned, whatever their number."""
    detection = PoisonDetection(separation=0.75)
    plan = Plan(data=poisoned.data, methods=[], held_out=0)
    detection.check(plan)
    with pytest.raises(ValueError, match="dataset_construction replaces them by others: leave one"):
        detection.check(replace(plan, constructs=True))


def test_detection_needs_a_backdoor(data):
    with pytest.raises(ValueError, match="detection needs a backdoor"):
        PoisonDetection(separation=0.75).check(Plan(data=data, methods=[], held_out=0))
