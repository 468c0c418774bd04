"""Feature matching: distances of the images from their starts, and of their features."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cwx.functional.feature_matching import match_features
from cwx.functional.images import Normalization

NORMALIZATION = Normalization(mean=[0.4, 0.6], std=[0.5, 0.25])


def problem(seed, count=3):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 2 * 4 * 4, generator=generator)
    unit = torch.rand(2, count, 2, 4, 4, generator=generator)
    return lambda images: images.flatten(1) @ weight.T, *NORMALIZATION.normalize(unit)


def match(features, starts, targets, *, step=0.05, steps=40):
    return match_features(
        features, starts, targets, normalization=NORMALIZATION, step=step, steps=steps
    )


@given(seed=st.integers(0, 99), step=st.floats(0.01, 0.5), steps=st.integers(0, 20))
def test_pixels_stay_in_range_and_distances_are_at_most_step_times_steps(seed, step, steps):
    features, starts, originals = problem(seed)
    matched = match(features, starts, features(originals), step=step, steps=steps)
    unit = NORMALIZATION.denormalize
    assert -1e-5 <= unit(matched).min() <= unit(matched).max() <= 1 + 1e-5
    distances = (unit(matched) - unit(starts)).flatten(1).norm(dim=1)
    assert (distances <= step * steps + 1e-4).all()


@given(seed=st.integers(0, 99))
def test_features_come_closer(seed):
    features, starts, originals = problem(seed)
    targets = features(originals)
    before, after = (
        (features(images) - targets).norm(dim=1)
        for images in (starts, match(features, starts, targets))
    )
    assert (after < 0.2 * before).all()


def test_images_do_not_influence_each_other():
    features, starts, originals = problem(0)
    together = match(features, starts, features(originals))
    for i in range(3):
        alone = match(features, starts[i : i + 1], features(originals[i : i + 1]))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-4)


def test_starts_with_the_target_features_do_not_change():
    features, starts, _ = problem(0)
    matched = match(features, starts, features(starts), steps=1)
    torch.testing.assert_close(matched, starts, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": -0.1}, "step of 0 or more, finite, not -0.1"),
        ({"steps": -1}, "steps of 0 or more, finite, not"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    features, starts, originals = problem(0)
    with pytest.raises(ValueError, match=message):
        match(features, starts, features(originals), **settings)
