"""The area under the ROC curve, against all pairs."""

import math

import pytest
import torch

from cwx.functional.auroc import RunningAuroc, auroc, auroc_given
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


def test_equal_values_of_the_other_score_are_in_one_part():
    """However the items are ordered: half of them at a confidence of exactly 1, negatives first."""
    generator = stream(3)
    positive = torch.arange(600) >= 300
    other = torch.rand(600, generator=generator)
    other[::2] = 1.0
    scores = torch.randn(600, generator=generator) + 3.0 * (positive & (other == 1))
    value = auroc_given(scores, positive, other, 4)
    order = torch.randperm(600, generator=generator)
    assert auroc_given(scores[order], positive[order], other[order], 4) == pytest.approx(value)
    tied = other == 1
    parts = [auroc(scores[part], positive[part]) for part in (tied, ~tied)]
    # The tied pairs are half of all items, and of one part; the others are in two.
    assert value > 0.75 * parts[0] + 0.25 * parts[1] - 0.1
    assert auroc_given(scores[tied], positive[tied], other[tied], 4) == parts[0]


def test_without_pairs_of_the_same_value_there_is_no_area():
    scores = torch.tensor([1.0, 2, 3, 4])
    assert math.isnan(auroc_given(scores, torch.tensor([False, False, True, True]), scores, 2))


# Images, units and levels of the activations.
STREAMS = [(200, 7, 5), (200, 7, 10_000), (333, 3, 40), (2, 2, 2)]


def stream_of(images, units, levels):
    scores = torch.randint(levels, (images, units), generator=stream(levels)).float()
    # As after a ReLU: many are 0.
    scores = (scores - levels / 3).relu()
    positive = torch.rand(images, units, generator=stream(1)) < 0.3
    positive[0], positive[1] = True, False
    return scores, positive


def counted(edges, scores, positive, size=33):
    running = RunningAuroc(edges)
    for part in torch.arange(len(scores)).split(size):
        running.add(scores[part], positive[part])
    return running


def exact(scores, positive):
    columns = zip(scores.T, positive.T, strict=True)
    return torch.tensor([auroc(s, p) for s, p in columns], dtype=torch.float64)


@pytest.mark.parametrize("setting", STREAMS)
@pytest.mark.parametrize("edges", [1, 2, 16, 1000])
def test_a_stream_is_as_exact_as_it_says(setting, edges):
    scores, positive = stream_of(*setting)
    value, error = counted(scores[:: max(1, len(scores) // edges)], scores, positive).result()
    assert ((value - exact(scores, positive)).abs() <= error + 1e-12).all()
    assert (error <= 0.5).all()


@pytest.mark.parametrize("setting", STREAMS)
def test_with_all_scores_as_edges_a_stream_is_exact(setting):
    scores, positive = stream_of(*setting)
    value, error = counted(scores.flip(0), scores, positive).result()
    assert torch.allclose(value, exact(scores, positive), atol=1e-12)
    assert error.tolist() == [0.0] * scores.shape[1]


def test_more_edges_lower_the_bound():
    scores, positive = stream_of(2000, 2, 10_000)
    bounds = [
        float(counted(scores[: 2**n], scores, positive).result().error.max()) for n in (2, 5, 9)
    ]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 0.002


def test_parts_of_a_stream_are_merged():
    scores, positive = stream_of(*STREAMS[0])
    whole = counted(scores[:20], scores, positive).result()
    first, *others = (counted(scores[:20], scores[n::3], positive[n::3]) for n in range(3))
    merged = first.merged(others).result()
    assert torch.equal(merged.value, whole.value)
    assert torch.equal(merged.error, whole.error)


def test_without_positives_or_negatives_it_is_not_a_number():
    scores = torch.rand(5, 2)
    value, error = counted(scores, scores, torch.tensor([[True, False]] * 5)).result()
    assert value.isnan().all()
    assert error.isnan().all()
