import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import references

from cwx.functional import representation_distance
from cwx.functional.representation_distance import (
    RealRepresentations,
    flat,
    mean_distance,
    mean_distance_within,
    mean_over_positions,
)

CLASSES = 3


def points(*shape, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) + offset


def real(seed, counts=(4, 2, 5), dimensions=3):
    return {c: points(n, dimensions, seed=seed + c, offset=c) for c, n in enumerate(counts)}


@given(st.integers(0, 1000), st.integers(1, 6))
def test_the_ratios_equal_the_formulas(seed, count):
    features, own = points(count, 3, seed=seed + 9), real(seed)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    targets = (labels + torch.randint(1, CLASSES, (count,), generator=generator)) % CLASSES
    # Of some, the original is not among the real ones.
    originals = torch.randint(-1, 2, (count,), generator=generator)
    found = RealRepresentations(own).ratios(features, labels, targets, originals)
    for i, (label, target) in enumerate(zip(labels.tolist(), targets.tolist(), strict=True)):
        expected = references.distance_ratios(
            features[i].tolist(), int(originals[i]), own[label].tolist(), own[target].tolist()
        )
        assert [ratio[i].item() for ratio in found] == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 1000), st.integers(2, 40))
def test_unperturbed_images_have_mean_ratios_of_1(seed, count):
    own = {0: points(count, 4, seed=seed), 1: points(3, 4, seed=seed + 1, offset=2)}
    labels = torch.zeros(count, dtype=torch.long)
    for dtype, near in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        given_ = {c: f.to(dtype) for c, f in own.items()}
        r1, r2 = RealRepresentations(given_).ratios(
            given_[0], labels, labels + 1, torch.arange(count)
        )
        assert r1.mean().item() == pytest.approx(1, rel=near)
        assert r2.mean().item() == pytest.approx(1, rel=near)


@given(st.floats(0.01, 100), st.floats(-10, 10), st.integers(0, 1000))
def test_scaling_and_shifting_leaves_ratios_as_they_are(scale, shift, seed):
    labels, originals = torch.tensor([0, 1, 2]), torch.tensor([1, -1, 0])
    features, own = points(3, 3, seed=seed + 9), real(seed)
    first = RealRepresentations(own).ratios(features, labels, labels.roll(1), originals)
    moved = RealRepresentations({c: scale * f + shift for c, f in own.items()}).ratios(
        scale * features + shift, labels, labels.roll(1), originals
    )
    torch.testing.assert_close(moved, first)


def test_ratios_do_not_depend_on_the_batch():
    features, own = points(6, 3, seed=9), RealRepresentations(real(0))
    labels, originals = torch.tensor([0, 0, 1, 2, 2, 0]), torch.tensor([0, 3, 1, -1, 4, -1])
    targets = torch.tensor([1, 2, 0, 0, 1, 1])
    whole = own.ratios(features, labels, targets, originals)
    for i in range(6):
        one = slice(i, i + 1)
        alone = own.ratios(features[one], labels[one], targets[one], originals[one])
        torch.testing.assert_close(alone, tuple(ratio[one] for ratio in whole))


def test_a_class_of_equal_representations_has_no_finite_ratio():
    own = {0: torch.ones(3, 2), 1: points(3, 2).float()}
    r1, r2 = RealRepresentations(own).ratios(
        torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1]), torch.tensor([-1])
    )
    assert not r1.isfinite()
    assert r2.isfinite()


def test_parts_of_a_distance_matrix_add_up(monkeypatch):
    many, few = points(7, 3), points(4, 3, seed=1)
    whole = mean_distance(many, few), mean_distance_within(many)
    expected = references.mean_distance(many.tolist(), few.tolist())
    assert whole[0].item() == pytest.approx(expected)
    # Over 42 of 49 pairs.
    expected = references.mean_distance(many.tolist(), many.tolist()) * 7 / 6
    assert whole[1].item() == pytest.approx(expected)
    monkeypatch.setattr(representation_distance, "_ROWS", 3)
    torch.testing.assert_close((mean_distance(many, few), mean_distance_within(many)), whole)
    assert mean_distance_within(many[:1]).isnan()


def test_pooling_keeps_all_positions_or_their_mean():
    maps = torch.arange(12.0).view(1, 3, 2, 2)
    assert flat(maps).tolist() == [list(range(12))]
    assert mean_over_positions(maps).tolist() == [[1.5, 5.5, 9.5]]
