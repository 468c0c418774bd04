"""The order of class names, and the orders in which programs number them."""

import pytest
import torch

from cwx.data.class_order import in_order, match_outputs, outputs_of, usual_orders

ORDERED = {
    "numbers": ["0", "1", "2", "10"],
    "negative numbers": ["-10", "-1", "0", "2"],
    "decimals": ["0.5", "2", "10.5"],
    "zero-padded numbers": ["001", "002", "010"],
    "one number twice": ["01", "1", "2"],
    "a common prefix": ["class_2", "class_10", "class_21"],
    "a common prefix that ends in a minus": ["class-2", "class-10"],
    "a common suffix": ["2nd", "10nd"],
    "digits in the prefix": ["v2_2", "v2_10"],
    "WordNet ids": ["n01440764", "n02084071"],
    "text": ["10", "9", "cat"],
    "two prefixes": ["a10", "a2", "b1"],
    "other digits": ["٣", "٤"],
    "case": ["B", "a"],
}


@pytest.mark.parametrize("case", ORDERED)
def test_names_are_in_the_order_of_their_numbers_or_else_sorted(case):
    names = ORDERED[case]
    assert in_order(names) == in_order(names[::-1]) == tuple(names)


def test_the_usual_orders_are_those_that_differ():
    assert usual_orders(["ant", "bee"], None) == {}
    orders = usual_orders(["0", "1", "2", "10"], None)
    assert orders == {"sorted as text": ("0", "1", "10", "2")}
    assert usual_orders(["0", "1", "10", "2"], None) == {"ordered by number": ("0", "1", "2", "10")}
    assert usual_orders(["Bee", "ant"], ["n2", "n1"]) == {
        "sorted without regard to case": ("ant", "Bee")
    }


def test_outputs_of_an_order_are_the_places_of_the_classes_in_it():
    assert outputs_of(["0", "2", "10"], ("0", "10", "2")).tolist() == [0, 2, 1]


@pytest.mark.parametrize("seed", range(3))
def test_the_matched_outputs_are_the_permutation_of_the_predictions(seed):
    generator = torch.Generator().manual_seed(seed)
    permutation = torch.randperm(7, generator=generator)
    labels = torch.arange(7).repeat(9)
    predictions = permutation[labels]
    noise = torch.rand(len(labels), generator=generator) < 0.2
    predictions[noise] = 0
    assert torch.equal(match_outputs(predictions, labels, 7), permutation)


def test_a_class_without_images_keeps_its_output():
    labels = torch.tensor([0, 0, 1, 1])
    assert match_outputs(1 - labels, labels, 4).tolist() == [1, 0, 2, 3]
