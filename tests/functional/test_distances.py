import pytest
import references
import torch

from cwx.functional.distances import literal_distance, normalised_distance, squared_distance


def states():
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2), (4,), ()]
    return [
        [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(3)
    ]


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
    reached = [p.clone().requires_grad_() for p in start]
    normalised_distance(start, reached, target).backward()
    assert all(p.grad.isfinite().all() for p in reached)


def test_normalised_distance_is_free_of_scale():
    start, reached, target = states()
    scaled = ([7 * p for p in state] for state in (start, reached, target))
    torch.testing.assert_close(
        normalised_distance(*scaled), normalised_distance(start, reached, target)
    )


def test_squared_distance_sums_over_parameters():
    assert squared_distance([torch.ones(3), torch.ones(2)], [torch.zeros(3), torch.zeros(2)]) == 5
