"""Detection of images that carry a faint pattern, despite the variation of natural images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage

from cwx.functional.matched_filter import (
    LeaveOneClassOutGaussian,
    leave_one_class_out_gaussians,
    split_by_pattern,
    two_groups,
)

SHAPE = (1, 6, 6)


def best_cut(values):
    """Otsu's separation by trying every cut."""
    mean, best = values.mean(), 0.0
    for cut in values.unique()[:-1]:
        high = values > cut
        between = sum(
            group.double().mean() * (values[group].mean() - mean) ** 2 for group in (high, ~high)
        )
        best = max(best, (between / values.var(correction=0)).item())
    return best


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=12).filter(lambda v: len(set(v)) > 1))
def test_two_groups_maximise_the_separation(values):
    values = torch.tensor(values, dtype=torch.float64)
    high, separation = two_groups(values)
    assert separation == pytest.approx(best_cut(values))
    assert values[high].min() > values[~high].max()


@given(st.floats(0.1, 10), st.floats(-10, 10), st.integers(0, 99))
def test_groups_do_not_depend_on_scale_and_shift(scale, shift, seed):
    values = torch.randn(30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    high, separation = two_groups(values)
    again, same = two_groups(values * scale + shift)
    assert torch.equal(high, again)
    assert same == pytest.approx(separation)


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0]])
def test_equal_values_have_no_groups(values):
    high, separation = two_groups(torch.tensor(values))
    assert not high.any()
    assert separation == 0


def pictures(count, seed):
    """Smooth bytes ``[count, 1, 6, 6]``: neighbouring pixels are nearly the same."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 2, 2, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=SHAPE[1:], mode="bilinear")
    grain = 0.01 * torch.randn(count, *SHAPE, generator=generator)
    return (60 + 120 * (smooth + grain).clamp(0, 1)).byte()


def checkerboard():
    return ((torch.arange(6) + torch.arange(6)[:, None]) % 2).expand(SHAPE) * 2.0 - 1


def labelled(per_class=200):
    labels = torch.arange(3).repeat_interleave(per_class)
    return torch.cat([pictures(per_class, seed) for seed in range(3)]), labels


def test_each_gaussian_is_that_of_all_other_classes():
    images, labels = labelled(60)
    flat = images.flatten(1).double() / 255
    fraction = ledoit_wolf_shrinkage(flat.numpy())
    classes = []
    for label, gaussian in leave_one_class_out_gaussians(images, labels):
        others = flat[labels != label]
        expected = torch.cov(others.T, correction=0)
        mu = expected.diagonal().mean()
        shrunk = fraction * len(flat) / len(others)
        expected = (1 - shrunk) * expected + shrunk * mu * torch.eye(len(expected))
        assert torch.allclose(gaussian.mean, others.mean(0))
        assert torch.allclose(gaussian.cholesky @ gaussian.cholesky.T, expected, atol=1e-12)
        classes.append(label)
    assert classes == [0, 1, 2]


def test_constant_pixels_give_finite_gaussians():
    images, labels = labelled(20)
    images[:, :, 0] = 7
    for constant in (images, torch.zeros_like(images)):
        for _, gaussian in leave_one_class_out_gaussians(constant, labels):
            assert torch.isfinite(gaussian.cholesky).all()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scale", [1e-3, 10])
def test_carriers_of_a_faint_pattern_are_found_from_a_noisy_estimate(sign, scale):
    """Three bytes of a checkerboard, where the pictures vary by sixty."""
    images, labels = labelled()
    carries = torch.zeros(200, dtype=torch.bool)
    carries[::3] = True
    own = images[labels == 1]
    own[carries] = (own[carries] + 3 * checkerboard()).byte()
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))
    gaussian = dict(leave_one_class_out_gaussians(images, labels))[1]
    estimate = checkerboard() + noise
    split = split_by_pattern(
        gaussian.whiten_images(own), gaussian.whiten_pattern(sign * scale * estimate)
    )
    assert torch.equal(split.carriers, carries)
    assert split.separation > 0.9
    # Without whitening, the accuracy is at chance.
    plain, _ = two_groups(own.flatten(1).float() @ estimate.flatten())
    assert (plain == carries).float().mean().item() == pytest.approx(0.5, abs=0.2)


def test_images_without_a_pattern_have_a_low_separation():
    images, labels = labelled()
    gaussian = dict(leave_one_class_out_gaussians(images, labels))[0]
    assert (
        split_by_pattern(
            gaussian.whiten_images(images[labels == 0]), gaussian.whiten_pattern(checkerboard())
        ).separation
        < 0.72
    )


def test_whitened_vectors_have_the_identity_as_covariance():
    vectors = torch.randn(400, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors = vectors @ torch.diag(torch.tensor([1.0, 10, 0.1, 3, 2]).double()) + vectors[:, :1]
    centred = vectors - vectors.mean(0)
    gaussian = LeaveOneClassOutGaussian(
        mean=vectors.mean(0), cholesky=torch.linalg.cholesky(torch.cov(centred.T, correction=0))
    )
    white = gaussian.whiten(centred)
    torch.testing.assert_close(torch.cov(white.T, correction=0), torch.eye(5).double())


@pytest.mark.parametrize("count", [50, 200])
def test_a_direction_is_not_evaluated_on_the_images_it_was_fitted_to(count):
    """Fewer images than pixels are perfectly separable along a direction fitted to them."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 255, (count, 3, 12, 12), generator=generator).byte()
    gaussian = LeaveOneClassOutGaussian(
        mean=torch.zeros(432, dtype=torch.float64), cholesky=torch.eye(432, dtype=torch.float64)
    )
    pattern = torch.randn(3, 12, 12, generator=generator)
    assert (
        split_by_pattern(
            gaussian.whiten_images(images), gaussian.whiten_pattern(pattern)
        ).separation
        < 0.72
    )
