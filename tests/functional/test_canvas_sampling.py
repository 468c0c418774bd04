from collections import Counter

import pytest
import torch

from cwx.functional.canvas_sampling import (
    derangement,
    negative,
    noise,
    positive,
    random,
    white,
)
from cwx.functional.rng import stream

# Two classes; the third image of class 0 and the second of class 1 are misclassified.
LABELS = torch.tensor([0, 0, 0, 1, 1, 1])
LOGITS = torch.tensor([[2.0, 0], [5, 1], [1, 3], [0, 9], [4, 3], [0, 2]])


@pytest.mark.parametrize(
    ("way", "target", "count", "expected"),
    [
        (positive, 0, 5, [1, 0]),
        (positive, 1, 1, [3]),
        (positive, 1, 5, [3, 5]),
        (negative, 0, 5, [4]),
        (negative, 1, 5, [2]),
        (negative, 1, 0, []),
    ],
)
def test_the_most_confident_come_first(way, target, count, expected):
    assert way(LOGITS, LABELS, target, count, stream(0)).tolist() == expected


def test_random_canvases_are_of_any_class_and_of_the_seed():
    first, same, other = (random(LOGITS, LABELS, 0, 4, stream(seed)).tolist() for seed in (0, 0, 1))
    assert first == same != other
    assert len(set(first)) == 4
    assert sorted(random(LOGITS, LABELS, 0, 99, stream(0)).tolist()) == list(range(6))


def test_a_white_canvas_is_no_image():
    assert torch.equal(white(LOGITS, LABELS, 0, 5, stream(0))((3, 4, 2)), torch.ones(1, 3, 4, 2))


def test_noise_is_uniform_and_of_the_seed():
    first, same, other = (
        noise(LOGITS, LABELS, 0, 2, stream(seed))((3, 40, 50)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.shape == (2, 3, 40, 50)
    assert 0 <= first.min() < 0.01 < 0.99 < first.max() <= 1
    assert first.mean() == pytest.approx(0.5, abs=0.02)
    # Pixels, channels and canvases are independent.
    planes = first.flatten(2).flatten(0, 1)
    assert torch.corrcoef(planes).fill_diagonal_(0).abs().max() < 0.12


def test_a_derangement_moves_every_index_and_all_are_alike():
    drawn = Counter(tuple(derangement(4, stream(seed)).tolist()) for seed in range(900))
    # There are 9 derangements of 4 items.
    assert len(drawn) == 9
    for order in drawn:
        assert sorted(order) == [0, 1, 2, 3]
        assert all(index != place for place, index in enumerate(order))
    assert 60 < min(drawn.values()) <= max(drawn.values()) < 140
    assert derangement(2, stream(0)).tolist() == [1, 0]
    with pytest.raises(ValueError, match="1 items have no other order"):
        derangement(1, stream(0))
