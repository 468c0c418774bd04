"""The area under the ROC curve, against all pairs."""

import math

import pytest
import torch

from cwx.functional.auroc import auroc, auroc_given
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


def test_what_another_score_explains_does_not_count():
    """Positives have a higher other score, which alone separates them; the score adds noise."""
    generator = stream(7)
    other = torch.rand(4000, generator=generator)
    positive = torch.rand(4000, generator=generator) < other
    assert auroc(other, positive) > 0.8
    assert auroc_given(other, positive, other, 40) == pytest.approx(0.5, abs=0.05)
    assert auroc_given(other, positive, other, 1) == auroc(other, positive)
    # A score that tells them apart among those of the same other score still does.
    assert auroc_given(positive.double(), positive, other, 40) == 1


def test_without_pairs_of_the_same_value_there_is_no_area():
    scores = torch.tensor([1.0, 2, 3, 4])
    assert math.isnan(auroc_given(scores, torch.tensor([False, False, True, True]), scores, 2))
