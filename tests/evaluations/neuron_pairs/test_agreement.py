"""Agreement of LC with simulated volunteers of known behaviour."""

import math
import random

import pytest
from sklearn.metrics import cohen_kappa_score
from support.pair_studies import make_study, volunteer

from cwx.evaluations.neuron_pairs.agreement import (
    Proportion,
    mean_kappa,
    statistic_agreement,
    volunteer_agreement,
)
from cwx.storage.pair_answers import Answers

LEVELS = [number / 100 for number in range(100)]


@pytest.fixture(scope="module")
def study():
    return make_study(LEVELS, pairs=2000, repeated=0.2)


@pytest.mark.parametrize("follows", [0.5, 0.85, 1.0])
def test_the_agreement_is_the_rate_at_which_a_volunteer_follows_lc(study, follows):
    row = volunteer_agreement(volunteer(study, "a", follows=follows, seed=1), study)
    assert (row.answered, row.cannot_say, row.ties, row.agreement.trials) == (2000, 0, 0, 2000)
    low, high = row.agreement.interval
    assert low <= follows <= high + 1e-9
    assert high - low < 0.05
    # Repeated pairs are answered alike if both times by LC, or both times against it.
    alike = follows**2 + (1 - follows) ** 2
    assert row.consistency.trials == 400
    assert row.consistency.interval[0] <= alike <= row.consistency.interval[1] + 1e-9


def test_an_error_rate_that_falls_with_the_difference_is_seen_in_the_tertiles(study):
    chance = random.Random(0)
    answers = {}
    for number, pair in study.pairs.items():
        difference = study.difference(pair)
        right = chance.random() < 1 / (1 + math.exp(-6 * difference))
        answers[number] = "right" if right else "left"
    seconds = tuple(float(n) for n in range(len(answers)))
    row = volunteer_agreement(Answers(volunteer="a", answers=answers, seconds=seconds), study)
    parts = [part.value for part in row.tertiles]
    assert parts == sorted(parts)
    assert parts[0] < 0.7
    assert parts[2] > 0.9
    assert sum(part.trials for part in row.tertiles) == 2000
    assert max(part.trials for part in row.tertiles) - min(p.trials for p in row.tertiles) <= 1
    assert sum(part.successes for part in row.tertiles) == row.agreement.successes
    # The 400 repetitions are the last ones.
    assert row.seconds == 999.5


def test_cannot_say_and_equal_lc_are_counted_apart():
    study = make_study([0.5, 0.5, 0.5, 1.0], pairs=6)
    tied = {number for number, pair in study.pairs.items() if study.difference(pair) == 0}
    assert len(tied) == 3
    answers = dict.fromkeys(study.pairs, "left")
    (first, *_) = study.pairs.keys() - tied
    answers[first] = "cannot say"
    row = volunteer_agreement(Answers(volunteer="a", answers=answers, seconds=(1.0,) * 6), study)
    assert (row.answered, row.cannot_say, row.ties, row.agreement.trials) == (6, 1, 3, 2)
    silent = dict.fromkeys(study.pairs, "cannot say")
    row = volunteer_agreement(Answers(volunteer="a", answers=silent, seconds=(1.0,) * 6), study)
    assert (row.agreement.value, row.agreement.interval, row.consistency.value) == (None,) * 3


def test_levels_that_differ_by_rounding_are_equal():
    study = make_study([0.1 + 0.2, 0.3], pairs=1)
    assert study.difference(study.pairs[1]) == 0


def test_the_interval_is_that_of_wilson():
    """p̂ = 0.9, n = 10: the formula of Wilson 1927 with z = 1.96."""
    z, n, p = 1.959963984540054, 10, 0.9
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(centre + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
    assert Proportion(successes=9, trials=10).interval == pytest.approx(expected)


def test_kappa_is_1_for_equal_volunteers_and_near_0_for_independent_ones(study):
    same = [volunteer(study, name, follows=0.8, seed=3) for name in "ab"]
    assert mean_kappa(same, study) == pytest.approx(1)
    random_ones = [volunteer(study, name, follows=0.5, seed=ord(name)) for name in "abc"]
    assert mean_kappa(random_ones, study) == pytest.approx(0, abs=0.05)
    assert mean_kappa(same[:1], study) is None


def test_kappa_is_the_mean_over_pairs_of_volunteers_on_common_pairs(study):
    three = [
        volunteer(study, name, follows=0.8, silent=0.3, seed=seed)
        for seed, name in enumerate("abc")
    ]
    kappas = []
    for first, second in ((0, 1), (0, 2), (1, 2)):
        sides = [
            (three[first].answers[n], three[second].answers[n])
            for n, pair in study.pairs.items()
            if pair.repeats is None
        ]
        sides = [both for both in sides if "cannot say" not in both]
        kappas.append(cohen_kappa_score(*zip(*sides, strict=True)))
    assert mean_kappa(three, study) == pytest.approx(sum(kappas) / 3)


def test_kappa_without_both_sides_is_unknown():
    study = make_study(LEVELS[:4], pairs=6)
    always = Answers(volunteer="a", answers=dict.fromkeys(study.pairs, "left"), seconds=(1.0,) * 6)
    assert mean_kappa([always, always], study) is None


def test_a_statistic_that_people_follow_beats_lc():
    chance = random.Random(0)
    other = [chance.random() for _ in LEVELS]
    study = make_study(LEVELS, pairs=2000, largest_fraction=other, depth=[1.0] * 100)
    people = [
        volunteer(study, name, follows=0.9, statistic="largest_fraction", seed=seed)
        for seed, name in enumerate("ab")
    ]
    followed = statistic_agreement("largest_fraction", people, study)
    assert followed.agreement.value == pytest.approx(0.9, abs=0.02)
    assert (followed.ties, followed.agreement.trials, followed.lc.trials) == (0, 4000, 4000)
    assert followed.lc.value == pytest.approx(0.5, abs=0.06)
    assert followed.disagreement.value == pytest.approx(0.1, abs=0.03)
    constant = statistic_agreement("depth", people, study)
    assert (constant.ties, constant.agreement.trials) == (4000, 0)
    assert statistic_agreement("lc", people, study).disagreement.trials == 0
