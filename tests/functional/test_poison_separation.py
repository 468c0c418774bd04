"""Groups apart among representations, against literal forms and scikit-learn."""

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from cwx.functional.auroc import auroc
from cwx.functional.poison_separation import (
    activation_clusters,
    leading_variance,
    principal_components,
    silhouette,
    spectral_scores,
)
from cwx.functional.rng import stream


def clouds(first, second, *, distance, dimensions=20, seed=0):
    """Two Gaussian clouds, and which points are of the second."""
    points = torch.randn(first + second, dimensions, generator=stream(seed))
    apart = torch.arange(first + second) >= first
    points[apart, 3] += distance
    order = torch.randperm(first + second, generator=stream(seed, 1))
    return points[order], apart[order]


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (30, 30)])
def test_components_are_those_of_scikit_learn_up_to_sign(shape):
    points = torch.randn(*shape, generator=stream(0))
    components = principal_components(points, 5)
    expected = torch.tensor(PCA(5).fit_transform(points.double().numpy()))
    torch.testing.assert_close(components.coordinates.abs(), expected.abs())
    singular = torch.linalg.svdvals(points.double() - points.double().mean(0))
    torch.testing.assert_close(components.variances, singular.square())


def test_there_are_no_more_components_than_points_or_features():
    assert principal_components(torch.rand(4, 9), 10).coordinates.shape == (4, 4)
    assert principal_components(torch.rand(9, 2), 10).coordinates.shape == (9, 2)
    with pytest.raises(ValueError, match="not finite"):
        principal_components(torch.full((3, 3), torch.nan), 1)


@pytest.mark.parametrize("sizes", [(10, 10), (30, 5), (12, 1), (2, 1)])
def test_the_silhouette_is_that_of_scikit_learn(sizes):
    points, second = clouds(*sizes, distance=3.0, dimensions=4)
    expected = silhouette_score(points.double().numpy(), second.numpy())
    assert silhouette(points.double(), second) == pytest.approx(expected)
    assert silhouette(points.double(), ~second) == pytest.approx(expected)


def test_a_long_table_has_the_silhouette_of_its_parts(monkeypatch):
    points, second = clouds(40, 20, distance=3.0)
    whole = silhouette(points, second)
    monkeypatch.setattr("cwx.functional.poison_separation._PAIRS", 150)
    assert silhouette(points, second) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(("first", "second"), [(60, 60), (90, 10), (100, 3)])
def test_two_clouds_apart_are_the_two_groups(first, second):
    points, apart = clouds(first, second, distance=15.0)
    groups = activation_clusters(points, restarts=5, seed=0)
    assert torch.equal(groups.smaller, apart) or first == second
    assert groups.fraction == pytest.approx(second / (first + second))
    assert auroc(groups.scores, groups.smaller) == 1


@pytest.mark.parametrize("distance", [0.0, 2.0, 4.0])
def test_the_groups_are_as_tight_as_those_of_scikit_learn(distance):
    points, _ = clouds(80, 20, distance=distance, dimensions=5)
    second = activation_clusters(points, restarts=10, seed=0).smaller
    inertia = sum(
        (points[mask] - points[mask].mean(0)).square().sum().item() for mask in (second, ~second)
    )
    assert inertia <= 1.005 * KMeans(2, n_init=10, random_state=0).fit(points.numpy()).inertia_


def test_moved_turned_and_scaled_points_have_the_same_groups():
    points, _ = clouds(40, 20, distance=4.0)
    turn = torch.linalg.qr(torch.randn(20, 20, generator=stream(3))).Q
    first, other = (
        activation_clusters(principal_components(p, 10).coordinates, restarts=3, seed=0)
        for p in (points, 5 * points @ turn + 100)
    )
    assert torch.equal(first.smaller, other.smaller)
    assert first.silhouette == pytest.approx(other.silhouette, rel=1e-3)


def test_equal_points_are_one_group():
    groups = activation_clusters(torch.ones(12, 3), restarts=3, seed=0)
    assert not groups.smaller.any()
    assert (groups.fraction, groups.silhouette) == (0, 0)
    components = principal_components(torch.ones(12, 3), 2)
    assert leading_variance(components) == 0
    assert not spectral_scores(components).any()


def test_a_small_group_apart_has_the_spectral_scores_and_raises_the_variance():
    near, far = (clouds(95, 5, distance=distance) for distance in (0.0, 20.0))
    for points, _ in (near, far):
        expected = torch.linalg.svdvals(points - points.mean(0))[0] ** 2 / 100
        variance = leading_variance(principal_components(points, 10))
        assert variance == pytest.approx(expected.item(), rel=1e-4)
    assert variance > 5 * leading_variance(principal_components(near[0], 10))
    assert auroc(spectral_scores(principal_components(far[0], 10)), far[1]) == 1


def test_spectral_scores_are_squared_projections_on_the_top_singular_vector():
    points = torch.randn(30, 6, generator=stream(0)).double()
    centred = points - points.mean(0)
    top = torch.linalg.svd(centred).Vh[0]
    torch.testing.assert_close(
        spectral_scores(principal_components(points, 3)), (centred @ top).square()
    )
