"""A running top-k equals the top k of a sort of all values."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cwx.functional.top_activations import RunningTopK, spatial_maximum, spatial_mean

# Few values, so that many are equal.
VALUES = st.sampled_from([-2.5, -1.0, -0.0, 0.0, 1e-30, 0.5, 3.0, float("inf"), float("-inf")])


@st.composite
def streams(draw):
    count, neurons = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    rows = st.lists(VALUES, min_size=neurons, max_size=neurons)
    return torch.tensor(draw(st.lists(rows, min_size=count, max_size=count)))


@given(streams(), st.integers(1, 6), st.integers(1, 7), st.integers(1, 9), st.randoms())
def test_the_top_k_equal_those_of_a_sort(activations, k, size, buffer_size, random):
    order = list(range(len(activations)))
    random.shuffle(order)
    running = RunningTopK(k, buffer_size=buffer_size)
    for part in torch.tensor(order).split(size):
        running.add(activations[part], part)
    top = running.top()
    for neuron, column in enumerate(activations.T.tolist()):
        expected = sorted(range(len(column)), key=lambda i: (-column[i], i))[:k]
        assert top.indices[:, neuron].tolist() == expected
        assert top.values[:, neuron].tolist() == [column[i] for i in expected]
        others = [column[i] for i in range(len(column)) if i not in expected]
        threshold = max(others, default=min(column))
        assert top.threshold[neuron] == threshold
        assert top.responding[:, neuron].tolist() == [column[i] > threshold for i in expected]


@given(streams(), st.integers(1, 6), st.integers(1, 5))
def test_parts_merge_to_the_top_k_of_all(activations, k, parts):
    whole, running = RunningTopK(k), [RunningTopK(k, buffer_size=2) for _ in range(parts)]
    whole.add(activations, torch.arange(len(activations)))
    for index, row in enumerate(activations):
        running[index % parts].add(row[None], torch.tensor([index]))
    first, *others = running
    for found, expected in zip(first.merged(others).top(), whole.top(), strict=True):
        assert torch.equal(found, expected)


def test_memory_does_not_grow_with_the_number_of_images():
    running = RunningTopK(3, buffer_size=8)
    for first in range(0, 1000, 5):
        running.add(torch.rand(5, 2), torch.arange(first, first + 5))
        assert sum(batch.shape[1] for batch in running._buffer) < 8
        assert running._top is None or running._top.shape == (2, 4)


def test_images_that_a_neuron_does_not_fire_on_do_not_respond():
    """Of a neuron that fires on three images, three respond; of one that never fires, none."""
    running = RunningTopK(5)
    activations = torch.zeros(40, 2)
    activations[[30, 7, 21], 0] = torch.tensor([1.0, 3.0, 2.0])
    running.add(activations, torch.arange(40))
    top = running.top()
    assert top.indices[:, 0][top.responding[:, 0]].tolist() == [7, 21, 30]
    assert not top.responding[:, 1].any()


def test_large_indices_are_kept():
    running = RunningTopK(2)
    running.add(torch.tensor([[-1.0], [-2.0]]), torch.tensor([3_000_000_000, 4_000_000_000]))
    assert running.top().indices[:, 0].tolist() == [3_000_000_000, 4_000_000_000]


@pytest.mark.parametrize("sign", [1, -1])
def test_activations_that_are_not_numbers_are_refused(sign):
    running = RunningTopK(1)
    running.add(torch.tensor([[1.0, 2.0], [3.0, sign * float("nan")]]), torch.arange(2))
    running.add(torch.tensor([[1.0, 2.0]]), torch.tensor([2]))
    with pytest.raises(ValueError, match="not a number: the network has diverged"):
        running.top()


@pytest.mark.parametrize(("reduce", "expected"), [(spatial_maximum, 7.0), (spatial_mean, 4.0)])
def test_a_channel_has_one_activation(reduce, expected):
    maps = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    assert reduce(maps).tolist() == [[expected, 0]]
    assert reduce(maps.flatten(2)).tolist() == [[expected, 0]]
    assert reduce(maps[:, :, 0, 0]).tolist() == [[1, 0]]
