"""Pruning the neurons that a trigger activates."""

import pytest
import torch
from torch.nn import functional

from cwx.functional.neuron_pruning import pruning_order, smallest_sufficient, success_by_count


def test_the_neurons_that_the_trigger_activates_most_come_first():
    clean = torch.tensor([[1.0, 0.0, 5.0, 2.0], [1.0, 2.0, 3.0, 2.0]])
    triggered = clean + torch.tensor([0.5, -3.0, 2.0, 0.0])
    assert pruning_order(clean, triggered).tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_success_is_that_of_the_network_without_the_neurons(has_bias):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 12, generator=generator)
    bias = torch.randn(4, generator=generator) if has_bias else None
    triggered = torch.rand(200, 12, generator=generator)
    order = torch.randperm(12, generator=generator)
    rates = success_by_count(triggered, weight, bias, order, 1, 12)
    for count in range(13):
        without = triggered.clone()
        without[:, order[:count]] = 0
        expected = (functional.linear(without, weight, bias).argmax(1) == 1).double().mean()
        assert rates[count] == pytest.approx(float(expected), abs=1e-9)
    assert len(set(rates.tolist())) > 2


def test_the_smallest_number_of_neurons_that_suffices_is_chosen():
    rates = torch.tensor([0.9, 0.4, 0.05, 0.2, 0.0])
    assert smallest_sufficient(rates, 0.05) == 2
    assert smallest_sufficient(rates, 0.01) == 4
    # None suffices: the least success counts.
    assert smallest_sufficient(torch.tensor([0.9, 0.4, 0.4, 0.6]), 0.05) == 1
