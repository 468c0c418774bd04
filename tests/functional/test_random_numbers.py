"""Random numbers of a network in training: found, and made a function of a seed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cwx.functional.random_numbers import draws_random_numbers, seeded


class Noisy(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, images):
        return images + self.draw(images) if self.training else images


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Dropout(0.5), True),
        (nn.Dropout2d(0.5), True),
        (nn.Sequential(nn.Flatten(), nn.AlphaDropout(0.1)), True),
        (nn.RReLU(), True),
        (Noisy(torch.randn_like), True),
        (Noisy(lambda x: torch.empty(len(x), 1, 1, 1).bernoulli_(0.5)), True),
        (nn.Dropout(0.0), False),
        (nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten()), False),
        (Noisy(lambda x: torch.ones_like(x)), False),
    ],
    ids=str,
)
def test_networks_that_draw_random_numbers_are_found(network, expected):
    state = torch.get_rng_state()
    assert draws_random_numbers(network.eval(), torch.zeros(2, 2, 4, 4)) is expected
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_depend_on_the_generator_and_leave_the_global_state():
    cpu, ones = torch.device("cpu"), torch.ones(100)
    state, draws = torch.get_rng_state(), []
    for seed in (1, 2, 1):
        with seeded(torch.Generator().manual_seed(seed), cpu):
            draws.append(F.dropout(ones))
        torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
