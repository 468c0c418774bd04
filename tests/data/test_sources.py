import torch

from cwx.data.sources import Digits


def test_digits_are_all_there_and_split_within_classes():
    splits = Digits().load()
    assert (len(splits.train), len(splits.test)) == (1442, 355)
    assert splits.train.images.shape[1:] == (1, 8, 8)
    assert splits.train.images.max() == 255
    counts = torch.bincount(splits.test.labels)
    assert counts.min() >= 34
    again = Digits().load()
    assert torch.equal(splits.test.images, again.test.images)
