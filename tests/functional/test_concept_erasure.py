"""Erasure of directions from the inputs of a linear layer."""

import pytest
import torch
from sklearn.covariance import OAS

from cwx.functional.concept_erasure import erase_directions, shrunk_covariance


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def features(generator):
    mixing = torch.randn(6, 6, generator=generator)
    return torch.randn(400, 6, generator=generator) @ mixing + torch.arange(6.0)


@pytest.fixture
def layer(generator):
    return torch.randn(3, 6, generator=generator), torch.randn(3, generator=generator)


@pytest.mark.parametrize("count", [400, 4])
def test_the_covariance_is_that_of_oracle_approximating_shrinkage(features, count):
    expected = OAS().fit(features[:count].double().numpy())
    mean, covariance = shrunk_covariance(features[:count])
    torch.testing.assert_close(mean, torch.as_tensor(expected.location_))
    torch.testing.assert_close(covariance, torch.as_tensor(expected.covariance_))
    torch.linalg.cholesky(covariance)


def test_constant_features_are_refused_and_round_ones_stay():
    with pytest.raises(ValueError, match="the 3 inputs of the layer are the same for all 5 images"):
        shrunk_covariance(torch.ones(5, 3))
    round_features = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    torch.testing.assert_close(
        shrunk_covariance(round_features)[1], 0.5 * torch.eye(2, dtype=torch.double)
    )


@pytest.mark.parametrize(("strength", "left"), [(1.0, 0.0), (1.25, -0.25), (0.5, 0.5)])
def test_a_shift_along_a_direction_loses_its_effect(layer, features, generator, strength, left):
    directions = torch.randn(2, 6, generator=generator)
    weight, bias = erase_directions(*layer, features, directions, strength)
    assert (weight.dtype, bias.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(
        directions @ weight.T, left * directions @ layer[0].T, rtol=1e-4, atol=1e-4
    )
    mean = features.mean(0)
    torch.testing.assert_close(mean @ weight.T + bias, mean @ layer[0].T + layer[1])


def test_no_other_map_without_the_direction_changes_the_outputs_less(layer, features, generator):
    direction = torch.randn(1, 6, generator=generator)
    weight, _ = erase_directions(*layer, features, direction, 1.0)
    _, covariance = shrunk_covariance(features)

    def change(new):
        difference = (new - layer[0]).double()
        return float((difference @ covariance @ difference.T).trace())

    for _ in range(20):
        # Another weight without effect of the direction.
        step = torch.randn(3, 6, generator=generator)
        step -= step @ direction.T @ direction / direction.square().sum()
        assert change(weight + 0.1 * step) > change(weight)
    assert change(weight) > 0


def test_zero_and_repeated_directions_do_not_count(layer, features, generator):
    direction = torch.randn(1, 6, generator=generator)
    expected = erase_directions(*layer, features, direction, 1.0)
    repeated = torch.cat([direction, torch.zeros(1, 6), -3 * direction])
    for own, other in zip(erase_directions(*layer, features, repeated, 1.0), expected, strict=True):
        torch.testing.assert_close(own, other)
    for own, other in zip(
        erase_directions(*layer, features, torch.zeros(2, 6), 1.0), layer, strict=True
    ):
        assert torch.equal(own, other)
