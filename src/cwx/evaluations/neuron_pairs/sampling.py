"""Random pairs of neurons for a study with people (Dong et al., Appendix B)."""

from collections.abc import Sequence
from math import comb, isqrt

import numpy as np

from cwx.storage.neuron_pairs import Pair

# Pairs from which strata are formed, for each pair of the study.
_CANDIDATES = 50


def draw_pairs(
    levels: Sequence[float], *, count: int, strata: int, repeated: float, seed: int
) -> list[Pair]:
    """Distinct random pairs of neurons, on random sides, then repetitions with sides swapped.

    Args:
        levels: LC of each neuron; neurons are numbered from 1, in this order.
        count: number of pairs without repetitions.
        strata: 1 draws all pairs with equal probability. More divide the pairs at quantiles of the
            difference of LC, and draw equally many from each part.
        repeated: fraction of the pairs that are repeated, in [0, 1].
        seed: of all draws.

    Returns:
        Pairs with numbers from 1.

    Raises:
        ValueError: there are fewer pairs of neurons.
    """
    possible = comb(len(levels), 2)
    if count > possible:
        raise ValueError(
            f"{count:,} pairs, and {len(levels):,} neurons have {possible:,} pairs: give at most "
            f"{possible:,}"
        )
    random = np.random.default_rng(seed)
    if strata == 1:
        codes = random.choice(possible, count, replace=False)
    else:
        candidates = random.choice(possible, min(possible, _CANDIDATES * count), replace=False)
        codes = _stratified(candidates, levels, count, strata, random)
    pairs = []
    for number, (code, swap) in enumerate(zip(codes, random.random(count) < 0.5, strict=True), 1):
        first, second = _neurons(int(code))
        left, right = (second, first) if swap else (first, second)
        pairs.append(Pair(number=number, left=left + 1, right=right + 1))
    again = random.choice(count, round(repeated * count), replace=False)
    return pairs + [
        Pair(number=number, left=pairs[i].right, right=pairs[i].left, repeats=pairs[i].number)
        for number, i in enumerate(sorted(again.tolist()), count + 1)
    ]


def _stratified(
    candidates: np.ndarray,
    levels: Sequence[float],
    count: int,
    strata: int,
    random: np.random.Generator,
) -> np.ndarray:
    """`count` of the candidates, equally many from each stratum of |ΔLC|, in random order."""
    ends = [_neurons(int(code)) for code in candidates]
    differences = [abs(levels[first] - levels[second]) for first, second in ends]
    parts = np.array_split(candidates[np.argsort(differences, kind="stable")], strata)
    counts = [len(part) for part in np.array_split(np.arange(count), strata)]
    drawn = [random.choice(part, n, replace=False) for part, n in zip(parts, counts, strict=True)]
    return random.permutation(np.concatenate(drawn))


def _neurons(code: int) -> tuple[int, int]:
    """The two neurons of a pair by its number, from 0, among all pairs.

    >>> [_neurons(code) for code in range(6)]
    [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    """
    second = (1 + isqrt(1 + 8 * code)) // 2
    return code - second * (second - 1) // 2, second
