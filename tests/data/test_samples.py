"""A few real images per class, saved with a run."""

import pytest
import torch
from support.run_folders import make_splits

from cwx.data import samples
from cwx.data.samples import sample_images
from cwx.data.splits import ImageSet, Splits


def test_samples_are_unchanged_images_of_their_classes():
    data = make_splits(per_class=7)
    tensors = sample_images(data)
    assert torch.equal(tensors["real/images"], data.test.first(5).images)
    assert torch.equal(tensors["real/labels"], data.test.first(5).labels)
    assert torch.bincount(tensors["train/labels"]).tolist() == [5, 5, 5]
    for image, label in zip(tensors["train/images"], tensors["train/labels"], strict=True):
        same = (data.train.images == image).flatten(1).all(1)
        assert label in data.train.labels[same]


def test_mean_images_are_means_of_the_training_images():
    data = make_splits(per_class=7)
    tensors = sample_images(data)
    assert tensors["mean/labels"].tolist() == [0, 1, 2]
    expected = torch.stack(
        [data.train.images[data.train.labels == c].double().mean(0) for c in range(3)]
    )
    assert (tensors["mean/images"].double() - expected).abs().max() <= 0.5


def test_classes_may_lack_images():
    whole = make_splits()
    data = Splits(whole.train.empty(), whole.test.at(whole.test.labels != 1), whole.classes)
    assert set(sample_images(data)) == {"real/images", "real/labels"}
    empty = ImageSet(whole.test.images[:0], whole.test.labels[:0])
    assert sample_images(Splits(empty, empty, whole.classes)) == {}


@pytest.mark.parametrize("budget", [10, 300, 1000, 3000, 10000])
def test_samples_stay_within_the_budget(monkeypatch, budget):
    monkeypatch.setattr(samples, "BUDGET", budget)
    data = make_splits(per_class=7, size=(8, 12))
    tensors = sample_images(data)
    images = [tensor for name, tensor in tensors.items() if name.endswith("/images")]
    assert all(set(tensors[f"{kind}/labels"].tolist()) == {0, 1, 2} for kind in ("real", "train"))
    smallest = all(tensor.shape[2] == 1 for tensor in images)
    assert sum(tensor.numel() for tensor in images) <= budget or smallest
    if budget >= 3000:
        assert all(tensor.shape[2:] == (8, 12) for tensor in images)
