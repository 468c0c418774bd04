"""Properties of backdoor triggers and label noise, for each kind."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from support.references import add_stripes, blend_rows

from cwx.functional.backdoor import (
    AllToOne,
    Blend,
    CleanLabel,
    Face,
    Patch,
    Sinusoid,
    choose,
)
from cwx.functional.label_noise import Asymmetric, Permuted, Uniform
from cwx.functional.rng import stream

TRIGGERS = {
    "patch": Patch(size=3, corner="bottom-right", margin=1, first_pixel="white"),
    "blend": Blend(ratio=0.2, picture=Face()),
    "sinusoid": Sinusoid(delta=20, frequency=6),
}
SHAPES = [(3, 32, 32), (1, 8, 8), (2, 5, 9)]
NAMES = ["cat", "dog", "frog", "horse"]

each_trigger = pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=list(TRIGGERS))
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def pictures(shape, count=4, seed=0):
    return torch.randint(256, (count, *shape), generator=stream(seed), dtype=torch.uint8)


def every_level(shape):
    """256 flat images, of which each pixel takes every value once."""
    levels = torch.arange(256, dtype=torch.uint8)
    return levels.view(-1, 1, 1, 1).expand(-1, *shape)


@each_trigger
@each_shape
def test_a_trigger_returns_new_bytes_of_the_same_shape(trigger, shape):
    images = pictures(shape)
    before = images.clone()
    found = trigger.apply(images)
    assert (found.shape, found.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)
    assert not torch.equal(found, images)
    assert torch.equal(found, trigger.apply(images))
    assert trigger.apply(images[:0]).shape == (0, *shape)


@each_trigger
@each_shape
def test_the_mask_is_where_some_image_changes(trigger, shape):
    images = every_level(shape)
    changed = (trigger.apply(images) != images).any(0).any(0)
    mask = trigger.mask(shape)
    assert mask.shape == shape[1:]
    assert torch.equal(mask, changed.float())


@each_trigger
@each_shape
def test_an_image_of_one_level_shows_the_pattern(trigger, shape):
    """What a trigger adds to grey, up to rounding and a factor, is its pattern."""
    pattern = trigger.pattern(shape)
    assert pattern.shape == shape
    added = trigger.apply(torch.full((1, *shape), 128, dtype=torch.uint8))[0].float() - 128
    if isinstance(trigger, Sinusoid):
        expected = 255 * pattern
    else:
        ratio = trigger.ratio if isinstance(trigger, Blend) else trigger.mask(shape)
        expected = ratio * (255 * pattern - 128)
    assert (added - expected).abs().max() <= 0.51


@each_trigger
@each_shape
def test_each_image_is_changed_on_its_own(trigger, shape):
    images = pictures(shape)
    assert torch.equal(trigger.apply(images)[2:3], trigger.apply(images[2:3]))


CORNERS = {
    "top-left": (slice(2, 5), slice(2, 5)),
    "top-right": (slice(2, 5), slice(-5, -2)),
    "bottom-left": (slice(-5, -2), slice(2, 5)),
    "bottom-right": (slice(-5, -2), slice(-5, -2)),
}


@pytest.mark.parametrize("corner", CORNERS)
@given(st.integers(5, 12), st.integers(5, 12), st.integers(0, 9))
def test_a_patch_lies_in_its_corner_and_nowhere_else(corner, height, width, seed):
    images = pictures((3, height, width), seed=seed)
    found = Patch(size=3, corner=corner, margin=2, first_pixel="white").apply(images)
    rows, columns = CORNERS[corner]
    board = torch.tensor([[255, 0, 255], [0, 255, 0], [255, 0, 255]], dtype=torch.uint8)
    assert torch.equal(found[:, :, rows, columns], board.expand(4, 3, -1, -1))
    found[:, :, rows, columns] = images[:, :, rows, columns]
    assert torch.equal(found, images)


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_grid_of_public_code_differs_from_a_checkerboard_in_its_first_pixel(corner, size):
    white, black = (
        Patch(size=size, corner=corner, margin=1, first_pixel=colour)
        for colour in ("white", "black")
    )
    images = pictures((3, 12, 9), seed=size)
    assert torch.equal(white.mask((3, 12, 9)), black.mask((3, 12, 9)))
    differs = (white.apply(images) != black.apply(images)).any(1)
    top, left = (index[0] for index in white.mask((3, 12, 9)).nonzero(as_tuple=True))
    assert differs.nonzero().tolist() == [[n, int(top), int(left)] for n in range(len(images))]
    assert (black.apply(images)[:, :, top, left] == 0).all()
    # The pattern is what is applied.
    mask = black.mask((3, 12, 9)) > 0
    applied = black.apply(images)[:, :, mask] / 255
    assert torch.equal(applied, black.pattern((3, 12, 9))[:, mask].expand_as(applied))


def test_the_public_grid_at_the_bottom_right_has_these_pixels():
    patch = Patch(size=3, corner="bottom-right", margin=0, first_pixel="black")
    assert patch.pattern((1, 32, 32))[0, -3:, -3:].tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_a_patch_without_a_margin_ends_with_the_image():
    mask = Patch(size=3, corner="bottom-right", margin=0, first_pixel="white").mask((3, 32, 32))
    assert mask[-3:, -3:].all()
    assert mask.sum() == 9


@given(st.integers(2, 24), st.integers(1, 255), st.floats(0.1, 20), st.integers(0, 99))
def test_stripes_equal_the_formula(width, delta, frequency, seed):
    images = pictures((2, 3, width), count=2, seed=seed)
    assume(max(abs(x) for x in add_stripes([0] * width, delta, frequency)) > 0.6)
    found = Sinusoid(delta=delta, frequency=frequency).apply(images)
    for before, after in zip(images.view(-1, width), found.view(-1, width), strict=True):
        literal = torch.tensor(add_stripes(before.tolist(), delta, frequency), dtype=torch.float64)
        assert (after - literal).abs().max() <= 0.5 + 1e-9


@pytest.mark.parametrize("width", range(1, 65))
def test_stripes_change_pixels_at_every_width_or_are_refused(width):
    for frequency in (0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8, 16, 32):
        for delta in (0.3, 0.6, 1, 20, 255):
            trigger, grey = (
                Sinusoid(delta=delta, frequency=frequency),
                torch.full((1, 3, 2, width), 128),
            )
            try:
                changed = trigger.apply(grey.byte()) != grey
            except ValueError as error:
                wave = [delta * math.sin(2 * math.pi * frequency * j / width) for j in range(width)]
                assert max(map(abs, wave)) < 0.5 + 1e-9
                assert_remedy_works(str(error), trigger, grey)
                for unusable in (trigger.mask, trigger.pattern):
                    with pytest.raises(ValueError, match="corruption.trigger.frequency"):
                        unusable((3, 2, width))
            else:
                assert changed.any()
                assert trigger.mask((3, 2, width)).any()


def assert_remedy_works(message, trigger, images):
    if images.shape[-1] == 1:
        assert message.endswith("stripes need wider images")
        return
    frequency = float(message.rpartition("frequency=")[2])
    delta = 1 if "a corruption.trigger.delta of 1" in message else trigger.delta
    assert (Sinusoid(delta=delta, frequency=frequency).apply(images.byte()) != images).any()


@given(st.floats(0.01, 1), st.integers(1, 12), st.integers(0, 99))
def test_a_blend_equals_the_formula(ratio, width, seed):
    images = pictures((3, 4, width), count=2, seed=seed)
    trigger = Blend(ratio=ratio, picture=Face())
    rows = trigger.pattern((3, 4, width)).expand(2, -1, -1, -1).reshape(-1, width)
    found = trigger.apply(images).view(-1, width)
    for before, picture, after in zip(images.view(-1, width), rows, found, strict=True):
        literal = torch.tensor(blend_rows(before.tolist(), picture.tolist(), ratio))
        assert (after - literal).abs().max() <= 0.501


@pytest.mark.parametrize("shape", [*SHAPES, (3, 7, 20), (1, 1, 1)], ids=str)
def test_the_face_is_a_unit_picture_of_any_shape(shape):
    picture = Face().draw(shape)
    assert picture.shape == shape
    assert picture.min() >= 0
    assert picture.max() <= 1


def test_the_face_has_parts_and_is_symmetric():
    picture = Face().draw((3, 32, 32))
    assert torch.equal(picture, picture.flip(-1))
    corner, forehead, eye, mouth = (
        picture[:, y, x].tolist() for y, x in ((0, 0), (4, 16), (11, 10), (24, 16))
    )
    assert corner == pytest.approx([0.1, 0.2, 0.7])
    assert forehead == pytest.approx([1, 0.85, 0.1])
    assert eye == mouth == pytest.approx([0.1, 0.05, 0.05])


REFUSED_TRIGGERS = {
    "corruption.trigger.size is 0: give 1 or more": lambda: Patch(
        size=0, corner="top-left", margin=0, first_pixel="white"
    ),
    "corruption.trigger.margin is -1: give 0 or more": lambda: Patch(
        size=3, corner="top-left", margin=-1, first_pixel="white"
    ),
    "corruption.trigger.corner is 'middle': give one of top-left": lambda: Patch(
        size=3, corner="middle", margin=0, first_pixel="white"
    ),
    "corruption.trigger.first_pixel is 'grey': give one of white, black": lambda: Patch(
        size=3, corner="top-left", margin=0, first_pixel="grey"
    ),
    "corruption.trigger.ratio is 0: give above 0": lambda: Blend(ratio=0, picture=Face()),
    "corruption.trigger.ratio is 1.1: give above 0, at most 1": lambda: Blend(
        ratio=1.1, picture=Face()
    ),
    "corruption.trigger.delta is 0: give above 0": lambda: Sinusoid(delta=0, frequency=6),
    "corruption.trigger.delta is 256: give above 0, at most 255": lambda: Sinusoid(
        delta=256, frequency=6
    ),
    "corruption.trigger.frequency is inf: give above 0, finite": lambda: Sinusoid(
        delta=20, frequency=float("inf")
    ),
    "3x3 pixels and a margin of 2, the images are 4x9: lower corruption.trigger": lambda: Patch(
        size=3, corner="top-left", margin=2, first_pixel="white"
    ).apply(pictures((1, 4, 9))),
    "9x9 pixels and a margin of 0, the images are 8x8": lambda: Patch(
        size=9, corner="top-left", margin=0, first_pixel="white"
    ).mask((1, 8, 8)),
}


@pytest.mark.parametrize("message", REFUSED_TRIGGERS)
def test_an_impossible_trigger_is_refused(message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        REFUSED_TRIGGERS[message]()
    assert message in str(caught.value)


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 3))
def test_candidates_are_all_images_or_those_of_the_target(labels, target):
    labels = torch.tensor(labels, dtype=torch.int64)
    assert AllToOne().candidates(labels, target).tolist() == list(range(len(labels)))
    clean = CleanLabel().candidates(labels, target)
    assert clean.tolist() == [i for i, label in enumerate(labels) if label == target]


@given(st.integers(1, 50), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
def test_choices_are_distinct_and_grow_with_the_rate(total, one, other, seed):
    candidates = torch.arange(total) * 3
    low, high = (
        choose(candidates, rate=round(rate * total) / total, total=total, generator=stream(seed))
        for rate in sorted([one, other])
    )
    assert len(low) == round(min(one, other) * total)
    assert len(high.unique()) == len(high) == round(max(one, other) * total)
    assert set(low.tolist()) <= set(high.tolist()) <= set(candidates.tolist())


@pytest.mark.parametrize(
    ("rate", "candidates", "message"),
    [
        (0.001, 100, "0.001, which is less than one of the 100 training images: give 0.01 or more"),
        (0.3, 10, "is 30 of the 100 training images, and 10 may be corrupted: give 0.1 or less"),
    ],
)
def test_an_impossible_number_is_refused(rate, candidates, message):
    with pytest.raises(ValueError, match=message):
        choose(torch.arange(candidates), rate=rate, total=100, generator=stream(0))


NOISE = {"permuted": Permuted(), "uniform": Uniform(), "asymmetric": Asymmetric(to=None)}


def labels_of(count, seed=0):
    return torch.randint(len(NAMES), (count,), generator=stream(seed))


@pytest.mark.parametrize("kind", NOISE.values(), ids=list(NOISE))
@given(st.integers(0, 60), st.integers(0, 9))
def test_noise_repeats_by_its_seed_and_leaves_labels_alone(kind, count, seed):
    labels = labels_of(count)
    before = labels.clone()
    first, second = (kind.draw(labels, NAMES, stream(seed)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(labels, before)
    assert (first.shape, first.dtype) == (labels.shape, torch.int64)
    assert set(first.tolist()) <= set(range(len(NAMES)))


@given(st.integers(0, 60), st.integers(0, 9))
def test_permuted_labels_are_the_same_labels(count, seed):
    labels = labels_of(count)
    found = Permuted().draw(labels, NAMES, stream(seed))
    assert sorted(found.tolist()) == sorted(labels.tolist())


@pytest.mark.parametrize("kind", [Permuted(), Uniform()], ids=["permuted", "uniform"])
def test_a_fraction_of_random_labels_is_correct_by_chance(kind):
    labels = labels_of(4000)
    right = (kind.draw(labels, NAMES, stream(1)) == labels).double().mean()
    assert abs(right - 1 / len(NAMES)) < 0.02


def test_uniform_labels_fill_all_classes():
    counts = Uniform().draw(torch.zeros(4000, dtype=torch.int64), NAMES, stream(0)).bincount()
    assert (counts / 4000 - 0.25).abs().max() < 0.02


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        (None, [1, 2, 3, 0]),
        ({"cat": "dog", "dog": "cat"}, [1, 0, 2, 3]),
        ({0: "frog", "horse": 1}, [2, 1, 2, 1]),
    ],
)
def test_asymmetric_noise_replaces_a_class_by_the_configured_one(to, expected):
    labels = torch.arange(4).repeat(3)
    found = Asymmetric(to=to).draw(labels, NAMES, stream(0))
    assert found.tolist() == expected * 3
