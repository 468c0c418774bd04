"""The anomaly index of Neural Cleanse."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from cwx.functional.neural_cleanse_index import neural_cleanse_index
from cwx.functional.rng import stream


@pytest.mark.parametrize("count", [2, 3, 10, 43])
def test_the_index_is_the_distance_in_scaled_absolute_deviations(count):
    norms = torch.rand(count, generator=stream(count)).double() * 30
    index = neural_cleanse_index(norms)
    values = norms.numpy()
    deviation = 1.4826 * stats.median_abs_deviation(values)
    expected = (np.median(values) - values.min()) / deviation
    assert index.label == values.argmin()
    assert index.value == pytest.approx(expected)
    assert index.flagged == (expected > 2)
    assert neural_cleanse_index(7 * norms + 3).value == pytest.approx(expected)


def test_equal_norms_have_index_zero_and_one_apart_among_equals_an_infinite_one():
    assert neural_cleanse_index(torch.ones(5)) == (0, 0.0, False)
    assert neural_cleanse_index(torch.tensor([5.0, 5.0, 1.0, 5.0])) == (2, math.inf, True)
    assert neural_cleanse_index(torch.tensor([5.0, 5.0, 9.0, 5.0])) == (0, 0.0, False)


@pytest.mark.parametrize("norms", [[], [1.0, math.nan], [1.0, math.inf]])
def test_norms_that_are_no_numbers_are_refused(norms):
    with pytest.raises(ValueError, match="needs finite norms"):
        neural_cleanse_index(torch.tensor(norms))
