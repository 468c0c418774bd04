"""Random pairs of neurons: distinct, on random sides, and spread over differences of LC."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwx.evaluations.neuron_pairs.sampling import _neurons, draw_pairs


@given(
    neurons=st.integers(2, 12),
    part=st.floats(0, 1),
    strata=st.integers(1, 10),
    repeated=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
)
def test_pairs_are_distinct_and_repetitions_have_swapped_sides(
    neurons, part, strata, repeated, seed
):
    count = max(1, round(part * comb(neurons, 2)))
    levels = list(np.linspace(0, 1, neurons))
    settings = {"count": count, "strata": strata, "repeated": repeated, "seed": seed}
    pairs = draw_pairs(levels, **settings)
    assert [pair.number for pair in pairs] == list(range(1, len(pairs) + 1))
    assert pairs == draw_pairs(levels, **settings)
    firsts = {pair.number: pair for pair in pairs if pair.repeats is None}
    again = [pair for pair in pairs if pair.repeats is not None]
    assert (len(firsts), len(again)) == (count, round(repeated * count))
    sets = {frozenset((pair.left, pair.right)) for pair in firsts.values()}
    assert len(sets) == count
    assert sets <= {frozenset(pair) for pair in combinations(range(1, neurons + 1), 2)}
    assert len({pair.repeats for pair in again}) == len(again)
    for pair in again:
        first = firsts[pair.repeats]
        assert (pair.left, pair.right) == (first.right, first.left)


def test_every_number_is_another_pair_of_neurons():
    assert {_neurons(code) for code in range(comb(50, 2))} == set(combinations(range(50), 2))
    # Beyond the precision of floats.
    assert _neurons(comb(10**10, 2) - 1) == (10**10 - 2, 10**10 - 1)


def test_sides_and_pairs_are_random():
    pairs = draw_pairs([0.0] * 200, count=4000, strata=1, repeated=0, seed=0)
    swapped = sum(pair.left > pair.right for pair in pairs) / 4000
    assert swapped == pytest.approx(0.5, abs=0.04)
    mean = sum(pair.left + pair.right for pair in pairs) / 8000
    assert mean == pytest.approx(100.5, abs=3)
    assert pairs != draw_pairs([0.0] * 200, count=4000, strata=1, repeated=0, seed=1)


def test_strata_have_equally_many_pairs():
    """Most neurons have an LC near 0: without strata, few pairs differ much."""
    levels = [(number / 100) ** 6 for number in range(100)]
    differences = sorted(abs(a - b) for a, b in combinations(levels, 2))
    low, high = (differences[len(differences) * part // 3] for part in (1, 2))

    def counts(strata):
        pairs = draw_pairs(levels, count=90, strata=strata, repeated=0, seed=0)
        drawn = [abs(levels[pair.left - 1] - levels[pair.right - 1]) for pair in pairs]
        return [
            sum(value < low for value in drawn),
            sum(low <= value < high for value in drawn),
            sum(value >= high for value in drawn),
        ]

    # Quantiles of all 4,500 candidates of 4,950 pairs.
    assert counts(3) == pytest.approx([30, 30, 30], abs=2)
    # The easy pairs do not come first.
    pairs = draw_pairs(levels, count=90, strata=3, repeated=0, seed=0)
    first = [abs(levels[p.left - 1] - levels[p.right - 1]) for p in pairs[:30]]
    assert min(first) < low
    assert max(first) > high


def test_more_pairs_than_there_are_is_refused():
    assert len(draw_pairs([0.0] * 4, count=6, strata=1, repeated=0, seed=0)) == 6
    with pytest.raises(ValueError, match="7 pairs, and 4 neurons have 6 pairs: give at most 6"):
        draw_pairs([0.0] * 4, count=7, strata=1, repeated=0, seed=0)
