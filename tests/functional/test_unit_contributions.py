"""Contributions, greedy removal and curves equal loops over units, and known answers."""

from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

from cwx.functional.unit_contributions import (
    Ablation,
    area,
    first_flip,
    greedy_removal,
    logits_along,
    logits_without_each,
    margin,
)

UNITS, CLASSES, IMAGES, DRAWS = 5, 4, 3, 2
GENERATOR = torch.Generator().manual_seed(3)
MAPS = torch.rand(IMAGES, UNITS, 2, 2, generator=GENERATOR).double()
WEIGHT = torch.randn(CLASSES, UNITS, generator=GENERATOR).double()
SECOND = torch.randn(CLASSES, CLASSES, generator=GENERATOR).double()
REPLACEMENTS = {
    "zero": torch.zeros(1, 1, UNITS, 2, 2).double(),
    "mean": torch.rand(1, 1, UNITS, 2, 2, generator=GENERATOR).double(),
    "resample": torch.rand(IMAGES, DRAWS, UNITS, 2, 2, generator=GENERATOR).double(),
}


def linear(rows, units):
    return units.mean((2, 3)) @ WEIGHT.T


def curved(rows, units):
    """Different for each image, whose row matters."""
    return torch.tanh(linear(rows, units) + rows[:, None]) @ SECOND.T


def ablation(later=curved, kind="zero", chunk=7):
    return Ablation(later=later, units=MAPS, replacement=REPLACEMENTS[kind], chunk=chunk)


def literally(kind, image, removed, later=curved):
    """The mean logits over draws, of one image without the units of a list."""
    replacement = REPLACEMENTS[kind]
    draws, logits = replacement[image if len(replacement) > 1 else 0], []
    for draw in draws:
        units = MAPS[image].clone()
        for unit in removed:
            units[unit] = draw[unit]
        logits.append(later(torch.tensor([image]), units[None])[0])
    return torch.stack(logits).mean(0)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("kind", REPLACEMENTS)
def test_logits_without_each_equal_a_loop(kind, chunk):
    without = logits_without_each(ablation(kind=kind, chunk=chunk))
    assert without.shape == (IMAGES, UNITS, CLASSES)
    for image in range(IMAGES):
        for unit in range(UNITS):
            torch.testing.assert_close(without[image, unit], literally(kind, image, [unit]))


def test_contributions_to_linear_logits_are_weights_times_activations():
    whole = linear(None, MAPS)
    found = whole[:, None] - logits_without_each(ablation(linear))
    expected = MAPS.mean((2, 3))[:, :, None] * WEIGHT.T
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("insert", [False, True])
@pytest.mark.parametrize("kind", REPLACEMENTS)
def test_logits_along_an_order_equal_a_loop(kind, insert):
    order = torch.stack([torch.randperm(UNITS, generator=GENERATOR) for _ in range(IMAGES)])
    found = logits_along(ablation(kind=kind), order, insert=insert)
    for image in range(IMAGES):
        for count in range(UNITS + 1):
            first, rest = order[image, :count].tolist(), order[image, count:].tolist()
            expected = literally(kind, image, rest if insert else first)
            torch.testing.assert_close(found[image, count], expected)


def test_the_margin_is_that_to_the_highest_other_logit():
    logits = torch.tensor([[[3.0, 1, 2]], [[3, 1, 2]]])
    assert margin(logits, torch.tensor([0, 1])).tolist() == [[1], [-2]]


@pytest.mark.parametrize("kind", REPLACEMENTS)
def test_greedy_removal_equals_a_loop(kind):
    predicted = curved(torch.arange(IMAGES), MAPS).argmax(1)
    order, flips = greedy_removal(ablation(kind=kind), predicted, UNITS)
    for image in range(IMAGES):
        removed, flip, label = [], torch.inf, int(predicted[image])
        while len(removed) < UNITS and flip == torch.inf:
            margins = {}
            for unit in set(range(UNITS)) - {*removed}:
                logits = literally(kind, image, [*removed, unit])
                others = torch.cat([logits[:label], logits[label + 1 :]])
                margins[unit] = (logits[label] - others.max()).item()
            removed.append(min(margins, key=margins.get))
            if literally(kind, image, removed).argmax() != label:
                flip = len(removed)
        assert flips[image] == flip
        padding = [-1] * (order.shape[1] - len(removed))
        assert order[image].tolist() == removed + padding


def two_classes(rows, units):
    """Logits ±w·a: the margin is linear."""
    scores = units.mean((2, 3)) @ torch.tensor([5.0, -1, 3, 0, 1]).double()
    return torch.stack([scores, -scores - 0.5], 1)


def test_the_greedy_order_of_a_linear_margin_is_that_of_the_contributions():
    part = ablation(two_classes)
    predicted = torch.zeros(IMAGES, dtype=torch.long)
    order, flips = greedy_removal(part, predicted, UNITS)
    whole = two_classes(None, MAPS)
    contributions = whole[:, None] - logits_without_each(part)
    sorted_units = (contributions[..., 0] - contributions[..., 1]).argsort(1, descending=True)
    along = first_flip(logits_along(part, sorted_units), predicted)
    assert flips.tolist() == along.tolist()
    for image in range(IMAGES):
        steps = order.shape[1] if flips[image].isinf() else int(flips[image])
        assert order[image, :steps].tolist() == sorted_units[image, :steps].tolist()


def test_greedy_removal_finds_the_smallest_group_here():
    """For a linear margin, no smaller group of units flips the prediction."""
    predicted = two_classes(None, MAPS).argmax(1)
    _, flips = greedy_removal(ablation(two_classes), predicted, UNITS)
    for image in range(IMAGES):
        smallest = min(
            (
                count
                for group in permutations(range(UNITS))
                for count in range(1, UNITS + 1)
                if literally("zero", image, group[:count], two_classes).argmax() != predicted[image]
            ),
            default=torch.inf,
        )
        assert flips[image] == smallest


def test_a_prediction_that_never_flips_has_no_number():
    def constant(rows, units):
        return F.one_hot(torch.full((len(units),), 2), CLASSES).double()

    part, predicted = ablation(constant), torch.full((IMAGES,), 2)
    order, flips = greedy_removal(part, predicted, 3)
    assert order.shape == (IMAGES, 3)
    assert all(len({*own}) == 3 for own in order.tolist())
    assert flips.isinf().all()
    assert first_flip(logits_along(part, torch.arange(UNITS).repeat(3, 1)), predicted).isinf().all()


def test_a_limit_ends_the_greedy_removal():
    predicted = curved(torch.arange(IMAGES), MAPS).argmax(1)
    order, flips = greedy_removal(ablation(), predicted, UNITS)
    shorter, limited = greedy_removal(ablation(), predicted, 1)
    assert shorter[:, 0].tolist() == order[:, 0].tolist()
    assert limited.tolist() == [flip if flip <= 1 else torch.inf for flip in flips.tolist()]


def test_the_first_flip_counts():
    logits = torch.tensor([[[2.0, 1], [0, 1], [2, 1]], [[2, 1], [2, 1], [2, 1]]])
    assert first_flip(logits, torch.tensor([0, 0])).tolist() == [1, torch.inf]


def test_areas_of_known_curves():
    curves = torch.tensor([[1.0, 1, 1], [1, 0.5, 0], [1, 0, 0]])
    assert area(curves).tolist() == pytest.approx([1, 0.5, 0.25])


def test_a_layer_with_one_unit():
    def later(rows, units):
        return torch.stack([units[:, 0], 1 - units[:, 0]], 1)

    part = Ablation(
        later=later, units=torch.tensor([[0.9], [0.2]]), replacement=torch.zeros(1, 1, 1), chunk=9
    )
    order, flips = greedy_removal(part, torch.tensor([0, 1]), 5)
    assert flips.tolist() == [1, torch.inf]
    assert order.tolist() == [[0], [0]]


def test_a_prediction_with_all_units_has_not_flipped():
    """Its logits may come from another batch, where rounding decides between two classes."""
    logits = torch.tensor([[[1.0, 1 + 1e-7], [1, 0.5], [0, 1]]])
    assert first_flip(logits, torch.tensor([0])).tolist() == [2]
