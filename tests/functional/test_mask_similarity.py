"""Overlap and rank correlation against their definitions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cwx.functional.mask_similarity import overlap, rank_correlation
from cwx.functional.rng import stream


def test_the_overlap_is_that_of_the_sets_of_pixels():
    masks = torch.rand(2, 6, 3, 4, generator=stream(0)) > 0.6
    for first, second, found in zip(*masks, overlap(*masks), strict=True):
        a, b = ({tuple(place) for place in mask.nonzero().tolist()} for mask in (first, second))
        assert found == pytest.approx(len(a & b) / len(a | b))
    assert (overlap(masks[0], masks[0]) == 1).all()
    assert (overlap(masks[0], ~masks[0]) == 0).all()


def test_random_masks_overlap_as_the_docstring_says():
    count, kept = 4000, 0.2
    order = torch.rand(2, count, 100, generator=stream(1)).argsort(2) < kept * 100
    assert overlap(*order).mean().item() == pytest.approx(kept / (2 - kept), abs=0.005)


def ranks(values):
    """The mean rank of equal values, one value at a time."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def literal(a, b):
    x, y = ranks(a), ranks(b)
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    product = sum((p - mean_x) * (q - mean_y) for p, q in zip(x, y, strict=True))
    squares = [sum((p - m) ** 2 for p in z) for z, m in ((x, mean_x), (y, mean_y))]
    return product / (squares[0] * squares[1]) ** 0.5


@given(st.integers(2, 6), st.integers(0, 20))
def test_the_correlation_of_ranks_is_that_of_the_formula(levels, seed):
    a, b = torch.randint(0, levels, (2, 3, 12), generator=stream(seed)).float()
    for x, y, found in zip(a, b, rank_correlation(a, b), strict=True):
        if len(x.unique()) > 1 and len(y.unique()) > 1:
            assert found.item() == pytest.approx(literal(x.tolist(), y.tolist()), abs=1e-9)


def test_the_correlation_depends_on_the_order_alone():
    a, b = torch.rand(2, 4, 30, generator=stream(2))
    torch.testing.assert_close(rank_correlation(a.exp(), b**3), rank_correlation(a, b))
    torch.testing.assert_close(rank_correlation(a, a), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(rank_correlation(a, -a), -torch.ones(4, dtype=torch.float64))
    assert rank_correlation(a[:1], torch.ones(1, 30)).isnan().all()
