import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf as Published
from torch.distributions import MultivariateNormal

from cwx.functional.class_gaussians import (
    Diagonal,
    LedoitWolf,
    PerClass,
    RunningMoments,
    Tied,
    ledoit_wolf_covariance,
)


def features(count, dimensions, seed, offset=0.0):
    """Correlated, of variances that differ."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, dimensions, generator=generator, dtype=torch.float64)
    return noise @ mix + offset


def moments(points, size=None):
    running = RunningMoments()
    for batch in points.split(size or len(points)):
        running.update(batch)
    return running.moments()


CLASSES = [features(n, 3, seed=n, offset=n) for n in (9, 14, 20)]
ASKED, OF = features(8, 3, seed=99, offset=12), torch.tensor([0, 1, 2, 2, 1, 0, 0, 2])


def scatter(points):
    return (points - points.mean(0)).T @ (points - points.mean(0))


def tied(ridge):
    covariance = sum(scatter(p) for p in CLASSES) / sum(map(len, CLASSES))
    return [covariance + ridge * covariance.trace() / 3 * torch.eye(3)] * 3


def per_class(ridge):
    covariances = [scatter(points) / len(points) for points in CLASSES]
    return [c + ridge * c.trace() / 3 * torch.eye(3) for c in covariances]


def diagonal(ridge):
    variances = [p.var(0, correction=0) for p in CLASSES]
    return [torch.diag(v + ridge * v.mean()) for v in variances]


def published():
    return [torch.from_numpy(Published().fit(p.numpy()).covariance_) for p in CLASSES]


COVARIANCES = {
    "tied": (Tied(ridge=0.0), tied(0.0)),
    "tied, ridge": (Tied(ridge=0.5), tied(0.5)),
    "per class": (PerClass(ridge=0.0), per_class(0.0)),
    "per class, ridge": (PerClass(ridge=0.5), per_class(0.5)),
    "diagonal": (Diagonal(ridge=0.0), diagonal(0.0)),
    "diagonal, ridge": (Diagonal(ridge=0.5), diagonal(0.5)),
    "ledoit-wolf": (LedoitWolf(), published()),
}


@pytest.mark.parametrize("name", COVARIANCES)
def test_log_probabilities_are_those_of_torch(name):
    fit, covariances = COVARIANCES[name]
    gaussians = fit(moments(points) for points in CLASSES)
    expected = torch.stack(
        [
            MultivariateNormal(CLASSES[c].mean(0), covariances[c]).log_prob(x)
            for x, c in zip(ASKED, OF.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(gaussians.log_prob(ASKED, OF), expected)
    # Of single-precision features as of their double.
    single = gaussians.log_prob(ASKED.float(), OF)
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 7), st.integers(2, 30), st.integers(1, 5), st.floats(-1e4, 1e4))
def test_batches_do_not_change_moments(size, count, dimensions, offset):
    points = features(count, dimensions, seed=count, offset=offset)
    found = moments(points, size)
    centred = points - points.mean(0)
    assert found.count == count
    near = {"rtol": 1e-6, "atol": 1e-8 * max(1.0, abs(offset))}
    torch.testing.assert_close(found.mean, points.mean(0), **near)
    torch.testing.assert_close(found.scatter, scatter(points), **near)
    quartic = centred.square().sum(1).square().sum()
    torch.testing.assert_close(found.quartic, quartic, **near)


@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 99))
def test_shrinkage_equals_that_of_scikit_learn(count, dimensions, seed):
    points = features(count, dimensions, seed)
    expected = torch.from_numpy(Published().fit(points.numpy()).covariance_)
    torch.testing.assert_close(ledoit_wolf_covariance(moments(points, 7)), expected)


def test_an_image_is_likelier_under_its_own_class():
    for fit, _ in COVARIANCES.values():
        gaussians = fit(moments(points) for points in CLASSES)
        middle = torch.stack([p.mean(0) for p in CLASSES])
        own = gaussians.log_prob(middle, torch.arange(3))
        for shift in (1, 2):
            assert (own > gaussians.log_prob(middle, torch.arange(3).roll(shift))).all()


def dead(count=10):
    """A channel that never fires."""
    return torch.cat([features(count, 2, seed=1), torch.zeros(count, 1)], 1)


@pytest.mark.parametrize(
    ("fit", "points", "message"),
    [
        (
            Tied(ridge=0.0),
            dead(),
            "all classes share is singular in 3 features: give a larger",
        ),
        (Tied(ridge=0.0), features(3, 3, seed=0), "is singular in 3 features"),
        (Diagonal(ridge=0.0), dead(), "a variance of class 0 is 0 over 10 images"),
        (Diagonal(ridge=0.1), dead(1), "a variance of class 0 is 0 over 1 images"),
        (LedoitWolf(), dead(1), "of class 0, of 1 images, is singular in 3 features"),
    ],
)
def test_a_singular_covariance_is_refused(fit, points, message):
    with pytest.raises(ValueError, match=message):
        fit([moments(points)])


@pytest.mark.parametrize("fit", [Tied(ridge=1e-6), Diagonal(ridge=1e-6), LedoitWolf()])
def test_a_channel_that_never_fired_is_unlikely_to_fire(fit):
    gaussians = fit([moments(dead())])
    still, firing = gaussians.log_prob(
        torch.tensor([[0.0, 0, 0], [0, 0, 1]]), torch.zeros(2, dtype=torch.long)
    )
    assert still.isfinite()
    assert firing < still


def test_impossible_fits_are_refused():
    for fit in (Tied, Diagonal):
        with pytest.raises(ValueError, match="covariance.ridge is -1: give 0 or more"):
            fit(ridge=-1)
    with pytest.raises(ValueError, match="a class has no images"):
        moments(torch.zeros(0, 3), 1)


def test_the_numbers_that_a_covariance_holds():
    held = [f.size(10, 3) for f in (Tied(ridge=0.0), Diagonal(ridge=0.0), LedoitWolf())]
    assert held == [9, 39, 90]
