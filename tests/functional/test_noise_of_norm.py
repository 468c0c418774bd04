"""Noise of a given norm on bytes: its norm, its range, and its independence of other images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cwx.functional.noise_of_norm import TOLERANCE, noise_of_norm
from cwx.functional.rng import stream

SHAPE = (3, 32, 32)


def pictures(count, seed=0):
    """Bytes, a third of which are black or white."""
    values = torch.randint(-64, 320, (count, *SHAPE), generator=stream(seed))
    return values.clamp(0, 255).to(torch.uint8)


def draws(count, seed=0):
    return torch.randn(count, *SHAPE, generator=stream(1, seed))


def distances(images, others):
    return (images.double() - others.double()).flatten(1).norm(dim=1)


@given(norms=st.lists(st.floats(60, 4000), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_the_norm_agrees_after_rounding_and_clipping(norms, seed):
    images, wanted = pictures(len(norms), seed), torch.tensor(norms)
    noisy = noise_of_norm(images, wanted, draws(len(norms), seed))
    assert noisy.dtype == torch.uint8
    torch.testing.assert_close(
        distances(noisy, images), wanted.double(), rtol=1.01 * TOLERANCE, atol=0
    )


@pytest.mark.parametrize("squared", [0, 1, 2, 3, 50])
def test_small_norms_are_met_by_single_grey_levels(squared):
    images = pictures(2)
    noisy = noise_of_norm(images, torch.full((2,), squared**0.5), draws(2))
    assert distances(noisy, images).square().round().tolist() == [squared] * 2


def test_the_noise_has_the_drawn_direction_and_no_other_scale():
    images, norms, noise = pictures(3), torch.tensor([100.0, 700, 2000]), draws(3)
    noisy = noise_of_norm(images, norms, noise)
    change = noisy.float() - images.float()
    assert (change * noise >= 0).all()
    # Noise of another scale is searched from another start, and meets the norm as well.
    again = noise_of_norm(images, norms, 7 * noise)
    torch.testing.assert_close(noisy.float(), again.float(), rtol=0, atol=1)


def test_an_image_does_not_depend_on_the_others():
    images, norms, noise = pictures(4), torch.tensor([5.0, 300, 900, 3000]), draws(4)
    whole = noise_of_norm(images, norms, noise)
    for index in range(4):
        part = slice(index, index + 1)
        assert torch.equal(noise_of_norm(images[part], norms[part], noise[part]), whole[part])


def test_a_norm_beyond_the_range_takes_the_farthest_noise():
    images, noise = pictures(1), draws(1)
    noisy = noise_of_norm(images, torch.tensor([1e6]), noise)
    assert torch.equal(noisy, torch.where(noise > 0, 255, 0).to(torch.uint8))
