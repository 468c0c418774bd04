"""Scores of a revealed trigger equal their literal forms, and their properties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.references import matched_psnr, overlap, pearson, revealed_map_literal

from cwx.functional.backdoor import Blend, Face, Patch, Sinusoid
from cwx.functional.rng import stream
from cwx.functional.trigger_scores import (
    PSNR_CEILING,
    affine_match,
    correlation,
    estimate_trigger,
    is_local,
    location_error,
    mask_at_maximum,
    mask_iou,
    principal_direction,
    psnr,
    revealed_map,
    revealed_pattern,
    top_pixels,
    trigger_scores,
)

TRIGGERS = {
    "patch": Patch(size=3, corner="bottom-right", margin=1, first_pixel="white"),
    "large": Patch(size=6, corner="top-left", margin=0, first_pixel="white"),
    "pixel": Patch(size=1, corner="top-right", margin=0, first_pixel="white"),
    "blend": Blend(ratio=0.2, picture=Face()),
    "sinusoid": Sinusoid(delta=20, frequency=2),
}
PLACE, LOOK = {"location_error", "iou"}, {"correlation", "psnr"}
DEFINED = {
    "patch": PLACE | LOOK | {"either_sign_correlation"},
    "large": LOOK,
    "pixel": PLACE,
    "blend": LOOK,
    "sinusoid": LOOK,
}
SHAPE = (2, 8, 8)
seeds = st.integers(0, 10_000)
each_trigger = pytest.mark.parametrize("name", TRIGGERS)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=stream(seed), dtype=torch.float64)


def truth(name):
    trigger = TRIGGERS[name]
    return {"mask": trigger.mask(SHAPE), "pattern": trigger.pattern(SHAPE)}


def scores(own, others, name):
    return trigger_scores(estimate_trigger(own, others), **truth(name))


@given(seeds)
def test_each_score_equals_its_literal_form(seed):
    own, others = noise(3, *SHAPE, seed=seed), noise(7, *SHAPE, seed=seed + 1)
    values = revealed_map(own, others)
    literal = revealed_map_literal(own, others)
    torch.testing.assert_close(values, torch.tensor(literal, dtype=torch.float64))
    found, mask = scores(own, others, "patch"), truth("patch")["mask"]
    assert (found["iou"], found["location_error"]) == pytest.approx(overlap(literal, mask.tolist()))
    area = mask.bool().expand(SHAPE)
    pair = [
        (own.mean(0) - others.mean(0))[area].tolist(),
        truth("patch")["pattern"][area].tolist(),
    ]
    assert found["correlation"] == pytest.approx(pearson(*pair))
    assert found["psnr"] == pytest.approx(matched_psnr(*pair))


@each_trigger
def test_the_true_trigger_beside_itself_is_perfect(name):
    """A class that differs from the rest by the trigger alone."""
    others, (mask, pattern) = noise(5, *SHAPE), truth(name).values()
    # Black squares stand out too.
    own = others + 9 * (mask * (pattern + 1) if is_local(mask) else pattern)
    perfect = {
        "location_error": pytest.approx(0, abs=1e-9),
        "iou": 1,
        "correlation": pytest.approx(1),
        "psnr": PSNR_CEILING,
        "either_sign_correlation": pytest.approx(1),
    }
    assert scores(own, others, name) == {score: perfect[score] for score in DEFINED[name]}


@each_trigger
@given(seed=seeds, gain=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_intensities_may_be_scaled_and_shifted(name, seed, gain, shift):
    own, others = noise(3, *SHAPE, seed=seed), noise(7, *SHAPE, seed=seed + 1)
    moved = scores(gain * own + shift, gain * others + shift, name)
    assert moved == pytest.approx(scores(own, others, name), rel=1e-5, abs=1e-7)


@each_trigger
def test_scores_stay_within_their_ranges_and_noise_is_near_chance(name):
    runs = [
        scores(noise(2, *SHAPE, seed=2 * n), noise(9, *SHAPE, seed=2 * n + 1), name)
        for n in range(100)
    ]
    ranges = {
        "location_error": (0, 7 * 2**0.5),
        "iou": (0, 1),
        "correlation": (-1, 1),
        "psnr": (10 * math.log10(4) - 1e-9, PSNR_CEILING),
        "either_sign_correlation": (0, 1),
    }
    for score in DEFINED[name]:
        low, high = ranges[score]
        assert all(low <= run[score] <= high for run in runs)
    means = {score: sum(run[score] for run in runs) / 100 for score in DEFINED[name]}
    if "iou" in means:
        fraction = truth(name)["mask"].mean().item()
        assert means["iou"] < fraction + 0.05
        assert means["location_error"] > 1.5
    if "correlation" in means:
        assert abs(means["correlation"]) < 0.1
        assert means["psnr"] < 11


def test_a_pattern_and_its_negative_are_revealed_although_their_mean_shows_neither():
    others, (mask, pattern) = noise(9, *SHAPE), truth("patch").values()
    signs = torch.tensor([1, -1, 1, -1]).view(-1, 1, 1, 1)
    board = 9 * mask * (pattern - pattern[mask.bool().expand(SHAPE)].mean())
    found = scores(others[:4] + signs * board, others, "patch")
    assert (found["iou"], found["location_error"]) == (1, pytest.approx(0, abs=1e-9))
    assert abs(found["correlation"]) < 0.9 < found["either_sign_correlation"]
    without = scores(others[:4], others, "patch")
    assert without["iou"] < 0.5
    assert without["either_sign_correlation"] < 0.7


@given(seed=seeds)
def test_the_sign_of_an_image_does_not_change_the_direction(seed):
    vectors = noise(4, 6, seed=seed) - 0.5
    signs = noise(4, 1, seed=seed + 1).sub(0.5).sign()
    direction = principal_direction(vectors)
    assert (direction @ principal_direction(signs * vectors)).abs() == pytest.approx(1)
    literal = torch.linalg.eigh(vectors.T @ vectors).eigenvectors[:, -1]
    assert (direction @ literal).abs() == pytest.approx(1)
    assert not principal_direction(0 * vectors).any()


@each_trigger
def test_identical_images_reveal_nothing(name):
    """The place is as uncertain as it can be: anywhere, and on the whole the middle."""
    same = torch.full((2, *SHAPE), 0.3)
    found = scores(same, same, name)
    fraction = truth(name)["mask"].mean().item()
    assert found.keys() == DEFINED[name]
    assert found.get("iou", fraction / (2 - fraction)) == pytest.approx(fraction / (2 - fraction))
    assert found.get("correlation", 0) == found.get("either_sign_correlation", 0) == 0
    centre = torch.full((8, 8), 1.0)
    expected = location_error(centre, truth(name)["mask"])
    assert found.get("location_error", expected) == pytest.approx(expected)


@given(seed=seeds, count=st.integers(1, 12), levels=st.integers(1, 5))
def test_top_pixels_add_up_and_treat_equals_alike(seed, count, levels):
    values = (noise(3, 4, seed=seed) * levels).floor()
    mask = top_pixels(values, count)
    assert mask.sum().item() == pytest.approx(count)
    assert 0 <= mask.min() <= mask.max() <= 1
    for level in values.unique():
        assert len(mask[values == level].unique()) == 1
    order = values.flatten().argsort(descending=True)
    assert (mask.flatten()[order].diff() <= 0).all()


@given(down=st.integers(0, 5), right=st.integers(0, 5), seed=seeds)
def test_a_mask_is_found_where_it_was_moved(down, right, seed):
    mask = torch.zeros(8, 8)
    mask[:3, :2] = 1
    mask[2, 0] = 0
    moved = mask.roll((down, right), (0, 1))
    assert torch.equal(mask_at_maximum(moved + 0.1 * noise(8, 8, seed=seed), mask), moved.double())


@given(seed=seeds, levels=st.integers(1, 3))
def test_places_that_tie_share_alike(seed, levels):
    values = (noise(5, 6, seed=seed) * levels).floor()
    mask = torch.zeros(5, 6)
    mask[1:3, 1:3] = 1
    found = mask_at_maximum(values, mask)
    assert found.sum().item() == pytest.approx(4)
    assert 0 <= found.min() <= found.max() <= 1
    sums = {(y, x): values[y : y + 2, x : x + 2].sum().item() for y in range(4) for x in range(5)}
    best = [place for place, total in sums.items() if total == max(sums.values())]
    expected = torch.zeros(5, 6, dtype=torch.float64)
    for y, x in best:
        expected[y : y + 2, x : x + 2] += 1 / len(best)
    torch.testing.assert_close(found, expected)


@given(st.integers(0, 4), st.integers(0, 3))
def test_the_location_error_of_a_shifted_mask_is_the_shift(down, right):
    mask = torch.zeros(8, 8)
    mask[:3, 1:4] = 1
    moved = mask.roll((down, right), (0, 1))
    assert location_error(mask, moved) == pytest.approx(math.hypot(down, right))
    assert mask_iou(mask, moved) == mask_iou(moved, mask) <= mask_iou(mask, mask) == 1


@given(seeds)
def test_the_match_is_the_best_with_a_positive_gain(seed):
    revealed, true = noise(20, seed=seed), noise(20, seed=seed + 1)

    def error(fit):
        return (fit - true).square().sum().item()

    best = error(affine_match(revealed, true))
    for gain in (0, 0.1, 1, 3):
        for shift in (-0.5, 0, 0.5):
            assert best <= error(gain * revealed + shift) + 1e-12
    rest = 1 - max(correlation(revealed, true), 0) ** 2
    peak = (true.max() - true.min()).item()
    expected = 10 * math.log10(peak**2 / (true.var(correction=0).item() * rest))
    assert psnr(revealed, true) == pytest.approx(expected)


def test_a_reversed_pattern_is_no_match():
    true = truth("patch")["pattern"][:, 4:7, 4:7]
    assert correlation(-true, true) == pytest.approx(-1)
    flat = torch.zeros_like(true)
    assert psnr(-true, true) == pytest.approx(psnr(flat, true))
    assert correlation(flat, true) == 0


def test_a_pattern_is_signed_and_of_the_means():
    own, others = noise(3, *SHAPE), noise(4, *SHAPE, seed=1)
    found = revealed_pattern(own, others)
    torch.testing.assert_close(found, -revealed_pattern(others, own))
    torch.testing.assert_close(found, revealed_pattern(own.repeat(2, 1, 1, 1), others))


def test_triggers_that_cover_the_image_are_not_local():
    assert [name for name in TRIGGERS if is_local(truth(name)["mask"])] == ["patch", "pixel"]
