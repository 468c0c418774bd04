import pytest
import torch

from cwx.functional.spacing import evenly_spaced, evenly_spaced_with_ends


@pytest.mark.parametrize("length", [0, 1, 2, 7, 24, 1000])
@pytest.mark.parametrize("count", [0, 1, 3, 24, None])
def test_indices_are_the_floors_of_equal_steps(length, count):
    n = length if count is None else min(length, count)
    expected = [i * length // n for i in range(n)]
    assert evenly_spaced(length, count).tolist() == expected
    assert len(set(expected)) == n


@pytest.mark.parametrize("length", [2, 7, 24, 1000])
@pytest.mark.parametrize("count", [2, 3, 101])
def test_indices_with_ends_include_the_first_and_the_last(length, count):
    indices = evenly_spaced_with_ends(length, count)
    assert (indices[0], indices[-1], len(indices)) == (0, length - 1, min(length, count))
    assert torch.equal(indices.unique(), indices)
