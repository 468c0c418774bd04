import pytest
import torch
from support import references

from cwx.functional.trajectory_distance import (
    literal_distance,
    normalised_distance,
    squared_distance,
)


def states():
    return torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("distance", "reference"),
    [
        (normalised_distance, references.normalised_distance),
        (literal_distance, references.literal_distance),
    ],
)
def test_agrees_with_the_literal_form(distance, reference):
    start, reached, target = states()
    torch.testing.assert_close(distance(start, reached, target), reference(start, reached, target))


def test_arriving_costs_nothing_and_standing_still_costs_two():
    start, _, target = states()
    assert normalised_distance(start, target, target).item() == pytest.approx(0, abs=1e-12)
    assert normalised_distance(start, start, target).item() == pytest.approx(2)


def test_standing_still_has_a_finite_gradient():
    start, _, target = states()
    reached = start.clone().requires_grad_()
    normalised_distance(start, reached, target).backward()
    assert reached.grad.isfinite().all()


def test_normalised_distance_is_free_of_scale():
    start, reached, target = states()
    scaled = normalised_distance(*(7 * states()))
    torch.testing.assert_close(scaled, normalised_distance(start, reached, target))


def test_squared_distance_sums_over_parameters():
    assert squared_distance(torch.ones(5), torch.zeros(5)) == 5
