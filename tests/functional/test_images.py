import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import float64
from support import references

from cwx.functional.images import Normalization, gaussian_blur, rescale, stretch

IMAGES = arrays(float64, (2, 3, 4, 5), elements=st.floats(-100, 100)).map(torch.from_numpy)
NORMALIZATION = Normalization(mean=(0.4, 0.5, 0.6), std=(0.2, 0.5, 0.1))


@given(IMAGES)
def test_normalisation_is_undone(images):
    back = NORMALIZATION.denormalize(NORMALIZATION.normalize(images))
    torch.testing.assert_close(back, images)


def test_bytes_come_back_and_what_lies_between_goes_to_the_nearest():
    levels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    assert torch.equal(NORMALIZATION.to_bytes(NORMALIZATION.from_bytes(levels)), levels)
    unit = torch.tensor([-3.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 7.0]).expand(1, 3, 1, 5)
    found = NORMALIZATION.to_bytes(NORMALIZATION.normalize(unit))
    assert found[0, :, 0].tolist() == [[0, 0, 1, 255, 255]] * 3


@given(IMAGES)
def test_projection_stays_in_range_and_is_idempotent(images):
    once = NORMALIZATION.project(images)
    unit = NORMALIZATION.denormalize(once)
    assert unit.min() >= -1e-9
    assert unit.max() <= 1 + 1e-9
    torch.testing.assert_close(NORMALIZATION.project(once), once, atol=1e-6, rtol=1e-6)


@given(IMAGES)
def test_clamping_moves_only_what_is_outside(images):
    clamped = NORMALIZATION.denormalize(NORMALIZATION.clamp(images))
    torch.testing.assert_close(clamped, NORMALIZATION.denormalize(images).clamp(0, 1))


def test_rescaling_fills_the_range_image_by_image():
    images = torch.stack([torch.linspace(-3, 9, 12), torch.linspace(0.2, 0.3, 12)])
    unit = rescale(images.view(2, 1, 3, 4))
    assert unit.amin((1, 2, 3)).tolist() == [0, 0]
    assert unit.amax((1, 2, 3)).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(("value", "expected"), [(0.25, 0.25), (7.0, 1.0), (-7.0, 0.0)])
def test_a_constant_image_has_no_range_to_fill(value, expected):
    assert rescale(torch.full((1, 1, 2, 2), value)).unique().item() == expected


@given(IMAGES, st.sampled_from([0.0, 0.01, 0.25]))
def test_a_stretch_is_monotone_and_fills_the_range(images, tail):
    stretched = stretch(images, tail=tail)
    assert 0 <= stretched.min() <= stretched.max() <= 1
    order = images.flatten().argsort()
    assert (stretched.flatten()[order].diff() >= 0).all()
    if images.unique().numel() > 1:
        assert (stretched.min(), stretched.max()) == (0, 1)


@given(IMAGES, st.sampled_from([0.01, 0.1]))
def test_a_stretch_clips_at_the_quantiles(images, tail):
    low, high = (torch.quantile(images.flatten(), q) for q in (tail, 1 - tail))
    if high > low:
        expected = ((images - low) / (high - low)).clamp(0, 1)
        torch.testing.assert_close(stretch(images, tail=tail), expected, atol=1e-6, rtol=1e-6)


def test_a_stretch_without_a_range_takes_the_full_one_or_clamps():
    # A few white pixels on black, fewer than the tail.
    images = torch.zeros(1, 1, 32, 32)
    images[..., -3:, -3:] = 0.5
    assert torch.equal(stretch(images, tail=0.01), 2 * images)
    constant = torch.tensor([[[[7.0, 7.0]]]])
    assert torch.equal(stretch(constant, tail=0.01), torch.ones(1, 1, 1, 2))


def test_a_stretch_ignores_values_that_are_not_finite():
    images = torch.tensor([0.0, 1.0, 4.0, float("inf"), float("nan"), -float("inf")])
    stretched = stretch(images.view(1, 1, 2, 3), tail=0).flatten()
    assert stretched[:4].tolist() == [0, 0.25, 1, 1]
    assert stretched[4].isnan()
    assert stretched[5] == 0
    huge = torch.tensor([-3e38, 0, 3e38]).view(1, 1, 1, 3)
    assert stretch(huge, tail=0).flatten().tolist() == [0, 0.5, 1]
    nothing = torch.full((1, 1, 1, 2), float("nan"))
    assert stretch(nothing, tail=0.01).isnan().all()


def test_a_stretch_takes_more_values_than_a_quantile_of_torch():
    images = torch.linspace(0, 10, 2**24 + 2).view(1, 1, 2, -1)
    assert stretch(images, tail=0.01)[..., 0, 0].item() == 0


def test_blur_agrees_with_the_literal_form():
    image = torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor(references.gaussian_blur(image.tolist(), 0.8, 2), dtype=torch.float64)
    torch.testing.assert_close(gaussian_blur(image[None, None], 0.8)[0, 0], expected)


@given(st.floats(-5, 5), st.floats(0, 3))
def test_blur_keeps_a_constant(value, sigma):
    image = torch.full((1, 2, 4, 4), value, dtype=torch.float64)
    torch.testing.assert_close(gaussian_blur(image, sigma), image)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [((0.5,), (0.5, 0.5), "one of each"), ((0.5,), (0.0,), "above 0"), ((), (), "one of each")],
)
def test_bad_normalisation(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalization(mean=mean, std=std)


def test_bad_blur():
    with pytest.raises(ValueError, match="0 or more"):
        gaussian_blur(torch.zeros(1, 1, 3, 3), -1)


def test_a_normalisation_first_asked_in_inference_mode_has_gradients_afterwards():
    normalization = Normalization(mean=(0.123,), std=(0.321,))
    images = torch.rand(2, 1, 3, 3)
    with torch.inference_mode():
        expected = normalization.normalize(images)
    leaf = images.clone().requires_grad_()
    found = normalization.normalize(leaf)
    assert torch.equal(found, expected)
    (slope,) = torch.autograd.grad(found.sum(), leaf)
    torch.testing.assert_close(slope, torch.full_like(slope, 1 / 0.321))
