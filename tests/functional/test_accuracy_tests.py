"""Exact tests of accuracies against their definitions, and how often they err."""

import pytest
import torch
from scipy.stats import binom, binomtest

from cwx.functional.accuracy_tests import (
    binomial_at_least,
    binomial_at_most,
    chance_accuracy,
    chance_needs,
    is_at_chance,
    sign_test,
)


@pytest.mark.parametrize("trials", [1, 7, 1000])
@pytest.mark.parametrize("probability", [0, 0.001, 0.3, 0.5, 1])
def test_the_tails_are_those_of_the_binomial_distribution(trials, probability):
    for hits in {0, 1, trials // 3, trials, trials + 1}:
        expected = binom.sf(hits - 1, trials, probability)
        assert binomial_at_least(hits, trials, probability) == pytest.approx(expected, abs=1e-12)
        expected = binom.cdf(hits, trials, probability)
        assert binomial_at_most(hits, trials, probability) == pytest.approx(expected, abs=1e-12)


def test_the_sign_test_is_the_binomial_test_of_the_images_that_differ():
    first = torch.tensor([True] * 3 + [False] * 12 + [True] * 20)
    second = torch.tensor([False] * 3 + [True] * 12 + [True] * 20)
    expected = binomtest(12, 15, alternative="greater").pvalue
    assert sign_test(first, second) == pytest.approx(expected)
    assert sign_test(first, first) == 1


def test_a_constant_prediction_is_at_chance_however_frequent_its_class():
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert chance_accuracy(torch.zeros_like(labels), labels, 2) == pytest.approx(0.9)
    assert chance_accuracy(labels, labels, 2) == pytest.approx(0.82)
    assert chance_accuracy(torch.zeros(5).long(), torch.zeros(5).long(), 2) == 0.5


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_random_predictions_are_at_chance_and_useful_ones_are_not(classes):
    generator = torch.Generator().manual_seed(classes)
    labels = torch.arange(classes).repeat(600 // classes)
    at_chance = 0
    for _ in range(200):
        random = torch.randint(classes, labels.shape, generator=generator)
        at_chance += is_at_chance(random, labels, classes)
        known = torch.rand(labels.shape, generator=generator) < 0.3
        assert not is_at_chance(torch.where(known, labels, random), labels, classes)
    assert at_chance >= 190


def test_few_images_say_nothing():
    labels = torch.tensor([0, 1, 2, 3])
    assert not is_at_chance(labels.roll(1), labels, 10)
    assert not is_at_chance(labels[:0], labels[:0], 10)
    assert is_at_chance(labels.repeat(9).roll(1), labels.repeat(9), 4)
    assert 9 < chance_needs(10) < 40 < chance_needs(2) < 150
