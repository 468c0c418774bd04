"""A few real images of each class, kept with a run."""

import pytest
import torch
from support.made_runs import splits

from cwx.data import samples
from cwx.data.samples import sampled
from cwx.data.splits import ImageSet, Splits


def test_images_are_of_their_classes_and_as_they_were():
    data = splits(per_class=7)
    found = sampled(data)
    assert torch.equal(found["real/images"], data.test.first(5).images)
    assert torch.equal(found["real/labels"], data.test.first(5).labels)
    assert torch.bincount(found["train/labels"]).tolist() == [5, 5, 5]
    for image, label in zip(found["train/images"], found["train/labels"], strict=True):
        same = (data.train.images == image).flatten(1).all(1)
        assert label in data.train.labels[same]


def test_means_are_those_of_the_training_images():
    data = splits(per_class=7)
    found = sampled(data)
    assert found["mean/labels"].tolist() == [0, 1, 2]
    expected = torch.stack(
        [data.train.images[data.train.labels == c].double().mean(0) for c in range(3)]
    )
    assert (found["mean/images"].double() - expected).abs().max() <= 0.5


def test_classes_may_lack_images():
    whole = splits()
    data = Splits(whole.train.none(), whole.test.at(whole.test.labels != 1), whole.classes)
    assert set(sampled(data)) == {"real/images", "real/labels"}
    nothing = ImageSet(whole.test.images[:0], whole.test.labels[:0])
    assert sampled(Splits(nothing, nothing, whole.classes)) == {}


@pytest.mark.parametrize("budget", [10, 300, 1000, 3000, 10000])
def test_they_stay_within_their_budget(monkeypatch, budget):
    monkeypatch.setattr(samples, "BUDGET", budget)
    data = splits(per_class=7, size=(8, 12))
    found = sampled(data)
    images = [tensor for name, tensor in found.items() if name.endswith("/images")]
    assert all(set(found[f"{kind}/labels"].tolist()) == {0, 1, 2} for kind in ("real", "train"))
    smallest = all(tensor.shape[2] == 1 for tensor in images)
    assert sum(tensor.numel() for tensor in images) <= budget or smallest
    if budget >= 3000:
        assert all(tensor.shape[2:] == (8, 12) for tensor in images)
