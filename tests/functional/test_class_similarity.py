"""LC, CS and the class correlation equal their formulas, term by term."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import references

from cwx.functional.class_similarity import (
    bin_statistics,
    class_fractions,
    correlation,
    level_consistency,
    similarity,
    squared_norm,
)

# Of a tree of five leaves: two pairs of siblings, and one apart.
TREE = torch.tensor(
    [[0, 2, 4, 4, 5], [2, 0, 4, 4, 5], [4, 4, 0, 2, 5], [4, 4, 2, 0, 5], [5, 5, 5, 5, 0]],
    dtype=torch.float64,
)
SIGMAS = st.floats(0.3, 2)
COUNTS = st.lists(st.integers(0, 9), min_size=5, max_size=5).filter(any)


def fractions(counts):
    found = torch.tensor(counts, dtype=torch.float64)
    return (found / found.sum())[None]


@given(SIGMAS, COUNTS, COUNTS)
def test_each_measure_equals_the_formula_of_the_paper(sigma, first, second):
    common = correlation(TREE, sigma)
    expected = references.correlation(TREE.tolist(), sigma)
    torch.testing.assert_close(common, torch.tensor(expected, dtype=torch.float64))
    p, q = fractions(first), fractions(second)
    level = references.inner_product(p[0].tolist(), p[0].tolist(), expected)
    assert level_consistency(p, common).item() == pytest.approx(level)
    like = references.cosine(p[0].tolist(), q[0].tolist(), expected)
    assert similarity(p, q, common).item() == pytest.approx(like)


@given(SIGMAS, COUNTS, COUNTS, st.permutations(range(5)))
def test_level_and_similarity_have_their_ranges_and_symmetries(sigma, first, second, order):
    common, p, q = correlation(TREE, sigma), fractions(first), fractions(second)
    level, like = level_consistency(p, common).item(), similarity(p, q, common).item()
    assert 0 < level <= 1 + 1e-12
    assert 0 <= like <= 1 + 1e-12
    assert similarity(p, p, common).item() == pytest.approx(1)
    assert similarity(q, p, common).item() == pytest.approx(like)
    assert similarity(p, 3 * q, common).item() == pytest.approx(like)
    moved = common[order][:, order]
    assert level_consistency(p[:, order], moved).item() == pytest.approx(level)
    assert similarity(p[:, order], q[:, order], moved).item() == pytest.approx(like)


def test_one_class_has_the_highest_level_and_near_ones_a_higher_one_than_far_ones():
    common = correlation(TREE, 1.0)
    assert level_consistency(torch.eye(5), common).tolist() == [1] * 5
    siblings, strangers = fractions([1, 1, 0, 0, 0]), fractions([1, 0, 0, 0, 1])
    assert level_consistency(siblings, common) > level_consistency(strangers, common)


def test_inactive_neurons_have_level_and_similarity_0():
    common, empty = correlation(TREE, 1.0), torch.zeros(2, 5)
    assert level_consistency(empty, common).tolist() == [0, 0]
    some = fractions([1, 2, 3, 4, 5]).float().expand(2, 5)
    assert similarity(empty, some, common).tolist() == [0, 0]
    assert similarity(some, empty, common).tolist() == [0, 0]
    assert similarity(empty, empty, common).tolist() == [0, 0]


def test_squared_norms_keep_the_leading_shape():
    common = correlation(TREE, 1.0)
    vectors = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    found = squared_norm(vectors, common)
    assert found.shape == (2, 3)
    for place in [(0, 0), (1, 2)]:
        one = vectors[place].tolist()
        assert found[place] == pytest.approx(references.inner_product(one, one, common.tolist()))
    assert (found > 0).all()
    assert squared_norm(vectors.float(), common).dtype == torch.float32


@pytest.mark.parametrize("sigma", [0, -1, float("inf"), float("nan")])
def test_sigma_is_above_0(sigma):
    with pytest.raises(ValueError, match=f"sigma is {sigma}: give a number above 0"):
        correlation(TREE, sigma)


def test_an_indefinite_correlation_is_refused():
    # Two groups of three, near across and far within: no points lie so.
    distances = torch.full((6, 6), 4.0)
    distances[:3, 3:] = distances[3:, :3] = 2.0
    distances.fill_diagonal_(0)
    assert correlation(distances, 1.0).shape == (6, 6)
    with pytest.raises(
        ValueError, match=r"a sigma of 3 .* 6 classes indefinite \(its smallest .* -0.*a smaller"
    ):
        correlation(distances, 3)
    with pytest.raises(ValueError, match="indefinite"):
        correlation(torch.zeros(2, 2), 1)


def test_class_fractions_count_the_masked_images_only():
    labels = torch.tensor([[0, 2], [0, 2], [1, 1]])
    counted = torch.tensor([[True, False], [True, False], [True, False]])
    found = class_fractions(labels, counted, 3)
    assert found.tolist() == [[2 / 3, 1 / 3, 0], [0, 0, 0]]
    counted[0, 0] = False
    assert class_fractions(labels, counted, 3)[0].tolist() == [0.5, 0.5, 0]


@given(st.lists(st.tuples(st.floats(-1, 5), st.floats(-9, 9)), min_size=1, max_size=20))
def test_bin_statistics_are_of_the_values_between_the_edges(pairs):
    x, values = torch.tensor(pairs, dtype=torch.float64).T
    edges = torch.tensor([0, 1, 3, 4], dtype=torch.float64)
    found = bin_statistics(x, values, edges)
    for place, (low, high) in enumerate([(-9, 1), (1, 3), (3, 9)]):
        within = [value for at, value in pairs if low <= at < high]
        assert found.count[place] == len(within)
        mean = sum(within) / len(within) if within else 0
        spread = (sum((v - mean) ** 2 for v in within) / len(within)) ** 0.5 if within else 0
        assert found.mean[place].item() == pytest.approx(mean, abs=1e-9)
        assert found.std[place].item() == pytest.approx(spread, abs=1e-6)
