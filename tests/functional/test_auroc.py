"""The area under the ROC curve, against all pairs."""

import math

import pytest
import torch

from cwx.functional.auroc import auroc
from cwx.functional.rng import stream


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_it_is_the_fraction_of_pairs_in_order(levels):
    scores = torch.randint(levels, (60,), generator=stream(levels)).double()
    positive = torch.rand(60, generator=stream(1)) < 0.3
    high, low = scores[positive, None], scores[~positive]
    expected = ((high > low).double() + (high == low).double() / 2).mean().item()
    assert auroc(scores, positive) == pytest.approx(expected)
    assert auroc(-scores, positive) == pytest.approx(1 - expected)


@pytest.mark.parametrize(
    ("scores", "positive"),
    [([1.0, 2.0], [True, True]), ([1.0, 2.0], [False, False]), ([1.0, math.nan], [True, False])],
)
def test_it_needs_both_groups_and_numbers(scores, positive):
    with pytest.raises(ValueError, match="an AUROC needs positives, negatives"):
        auroc(torch.tensor(scores), torch.tensor(positive))
