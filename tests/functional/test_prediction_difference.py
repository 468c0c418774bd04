import pytest
import torch
from support import references
from torch import nn

from cwx.functional.class_similarity import correlation
from cwx.functional.prediction_difference import prediction_differences

DISTANCES = torch.tensor([[abs(i - j) for j in range(5)] for i in range(5)]).double()
CORRELATION = correlation(DISTANCES, 1.0)


def test_differences_equal_the_formula():
    """For several images at once."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 4, 3, 3, generator=generator).double()
    weight = torch.randn(5, 4, generator=generator).double()

    def head(of_image):
        return weight @ of_image.mean((1, 2))

    def without(of_image, channel):
        return head(of_image * (torch.arange(4) != channel)[:, None, None]).softmax(0)

    original = torch.stack([head(of_image).softmax(0) for of_image in maps])
    changed = torch.stack([torch.stack([without(m, c) for c in range(4)]) for m in maps])
    found = prediction_differences(original, changed, CORRELATION)
    assert found.shape == (2, 4)
    for image in range(2):
        for channel in range(4):
            expected = references.prediction_difference(
                head, maps[image], channel, CORRELATION.tolist()
            )
            assert found[image, channel].item() == pytest.approx(expected, rel=1e-9)


def test_a_channel_that_nothing_reads_makes_no_difference():
    layer = nn.Linear(4, 5).double()
    layer.weight.data[:, 2] = 0
    units = torch.eye(4).double()
    without = layer(1 - units).softmax(1)
    found = prediction_differences(layer(torch.ones(4).double()).softmax(0), without, CORRELATION)
    assert found[2].item() == pytest.approx(0, abs=1e-24)
    assert (found >= 0).all()
    assert found.max() > 1e-8


def test_close_classes_count_for_less():
    """What moves from one class to another matters less, the closer they are."""
    whole, without = torch.tensor([1.0, 0, 0, 0, 0]), torch.eye(5)
    found = prediction_differences(whole.double(), without.double(), CORRELATION)
    assert found[0] == 0
    assert found.tolist() == sorted(found.tolist())
