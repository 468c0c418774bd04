"""Groups among the training images of a small subject."""

import math
from dataclasses import replace
from statistics import median

import pytest
import torch
from support.builders import Blobs, BlobsWithoutTraining, image_data, small_convnet, small_mlp
from torch import nn

from cwx.data.corruption import Backdoor
from cwx.evaluations.backdoor.poisoned_groups import PoisonedGroups
from cwx.functional.backdoor import AllToOne, Patch
from cwx.training.plan import Plan

SETTINGS = {"layer": None, "components": 4, "restarts": 3}


def poisoned_groups(**settings):
    return PoisonedGroups(**{**SETTINGS, **settings})


def plan(data, network=small_mlp):
    return Plan(data=data, methods=[], held_out=0, networks={"network": network})


class Pixels(nn.Module):
    """The penultimate features are the pixels."""

    def __init__(self, *, in_channels, image_size, num_classes):
        super().__init__()
        self.last = nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)

    def forward(self, images):
        return self.last(images.flatten(1))


@pytest.fixture
def backdoored(subject):
    """The subject with a white 2x2 patch in training images, on networks that see pixels."""
    data = image_data()
    patch = Patch(size=2, corner="bottom-left", margin=0, first_pixel="white")
    data.corrupt(Backdoor(trigger=patch, target="right", rate=0.1, variant=AllToOne(), seed=0))
    network = Pixels(in_channels=2, image_size=(4, 4), num_classes=3)

    class OfPixels(type(subject)):
        def first_network(self, kind):
            return network.eval()

    return OfPixels(**{**vars(subject), "data": data})


def test_poisoned_images_are_a_group_apart(backdoored):
    outcome = poisoned_groups()(backdoored, {})
    rows = {row["class"]: row for row in outcome.tables["poisoned_groups"]}
    assert [row["images"] for row in rows.values()] == torch.bincount(
        backdoored.data.splits.train.labels
    ).tolist()
    assert rows["right"]["poisoned"] == 6
    assert outcome.metrics["poisoned_groups/clustering/auroc"] == 1
    assert outcome.metrics["poisoned_groups/spectral/auroc"] > 0.8
    assert rows["left"]["clustering_auroc"] == ""
    for statistic in ("silhouette", "leading_variance"):
        value = {name: row[statistic] for name, row in rows.items()}
        assert max(value, key=value.__getitem__) == "right"
        assert outcome.metrics[f"poisoned_groups/{statistic}/class/right"] == value["right"]
    assert 0 < rows["right"]["smaller"] <= 6 / rows["right"]["images"]


def test_the_scale_of_the_features_does_not_matter(backdoored):
    before = poisoned_groups()(backdoored, {}).metrics
    backdoored.data.normalization = replace(
        backdoored.data.normalization, std=[s / 10 for s in backdoored.data.normalization.std]
    )
    assert poisoned_groups()(backdoored, {}).metrics == pytest.approx(before, rel=1e-3)
    assert median(before[f"poisoned_groups/leading_variance/class/{c}"] for c in Blobs.classes) == 1


def test_features_without_variance_have_no_leading_variance(backdoored):
    backdoored.data.normalization = replace(backdoored.data.normalization, std=[math.inf] * 2)
    outcome = poisoned_groups()(backdoored, {})
    assert {row["leading_variance"] for row in outcome.tables["poisoned_groups"]} == {""}
    assert all(value == 0 for name, value in outcome.metrics.items() if "auroc" not in name)


def test_without_a_backdoor_no_image_is_known_to_be_poisoned(subject):
    outcome = poisoned_groups()(subject, {})
    assert not any(name.endswith("auroc") for name in outcome.metrics)
    assert {row["poisoned"] for row in outcome.tables["poisoned_groups"]} == {""}
    assert len(outcome.metrics) == 9
    assert list(outcome.figures) == ["poisoned_groups"]


def test_constructed_images_are_not_known_to_be_poisoned(backdoored):
    backdoored.data.train_on(backdoored.data.splits.train.at(torch.arange(50)))
    outcome = poisoned_groups()(backdoored, {})
    assert {row["poisoned"] for row in outcome.tables["poisoned_groups"]} == {""}


def test_a_small_class_is_left_out_and_said(subject, caplog):
    data = image_data()
    train = data.splits.train
    kept = (train.labels != 1) | (torch.arange(len(train)) < 29)
    data._splits = replace(data.splits, train=train.at(kept))
    outcome = poisoned_groups()(replace(subject, data=data), {})
    assert outcome.tables["poisoned_groups"][1] == {
        "class": "middle", "images": 9, "silhouette": "", "smaller": "", "leading_variance": "",
        "poisoned": "", "clustering_auroc": "", "spectral_auroc": "",
    }  # fmt: skip
    assert not any("middle" in name for name in outcome.metrics)
    assert "leaves out 1 of 3 classes, with fewer than 10 training images: middle" in caplog.text


def test_batches_do_not_change_the_groups(subject):
    first, other = (
        poisoned_groups()(replace(subject, data=image_data(batch_size=size)), {}).metrics
        for size in (7, 1000)
    )
    assert first == pytest.approx(other, rel=1e-4)


def test_data_without_training_images_are_refused():
    for data in (image_data(BlobsWithoutTraining()), image_data(per_class=9)):
        with pytest.raises(ValueError, match=r"needs 10 training images of a class.*leave"):
            poisoned_groups().check(plan(data))


def test_a_layer_is_named_and_refused_by_its_setting(convolutional):
    poisoned_groups(layer="classifier").check(plan(convolutional.data, small_convnet))
    with pytest.raises(ValueError, match="no layer 'classfier'"):
        poisoned_groups(layer="classfier").check(plan(convolutional.data, small_convnet))

    class Headless(nn.Flatten):
        def __init__(self, **_):
            super().__init__()

    with pytest.raises(ValueError, match=r"set evaluation\.poisoned_groups\.layer to the layer"):
        poisoned_groups().check(plan(convolutional.data, Headless))


def test_representations_that_exceed_the_memory_are_refused(monkeypatch):
    name = "cwx.evaluations.backdoor.poisoned_groups.STATISTICS_BYTES"
    monkeypatch.setattr(name, 1000)
    with pytest.raises(ValueError, match=r"would take 0 GiB of memory for 20 images of 6 features"):
        poisoned_groups().check(plan(image_data()))
