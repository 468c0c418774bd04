"""A watermark on the images of one class: which images change, and how."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.builders import Blobs, image_data

from cwx.data.corruption import Backdoor, check_result
from cwx.data.splits import ImageSet
from cwx.data.watermark import Watermark
from cwx.functional.backdoor import CleanLabel, Patch
from cwx.functional.rng import stream
from cwx.report.corruption_line import corruption_line
from cwx.study.corruption_row import corruption_row

NAMES = ("cat", "dog", "frog", "horse")
COUNT, TARGET = 80, 1
OWN = COUNT // len(NAMES)
GRID = Patch(size=2, corner="bottom-right", margin=0, first_pixel="white")
# Fractions of the 20 images of a class.
fractions = st.integers(1, OWN).map(lambda count: count / OWN)


def image_set(labels=None):
    """Images that all differ, without a watermark in any of them."""
    images = torch.randint(50, 200, (COUNT, 3, 6, 6), generator=stream(0), dtype=torch.uint8)
    return ImageSet(images, torch.arange(COUNT) % len(NAMES) if labels is None else labels)


def watermark(**settings):
    chosen = {"trigger": GRID, "target": "dog", "fraction": 1.0, "replaced": 0.0, "seed": 0}
    return Watermark(**chosen | settings)


def unmarked(images):
    """The pixels ``[n, m]`` that the watermark does not cover."""
    return images[:, :, GRID.mask((3, 6, 6)) == 0].flatten(1)


@given(fractions, st.data(), st.integers(0, 5))
def test_images_of_the_class_alone_change_and_no_label_does(fraction, data, seed):
    replaced = data.draw(fractions.filter(lambda value: value <= fraction) | st.just(0.0))
    clean = image_set()
    result = watermark(fraction=fraction, replaced=replaced, seed=seed)(clean, NAMES)
    check_result(result, clean, NAMES)
    assert torch.equal(result.images.labels, clean.labels)
    changed = (result.images.images != clean.images).flatten(1).any(1)
    assert (clean.labels[changed] == TARGET).all()
    assert changed.sum() == round(fraction * OWN)
    shown = result.images.images
    assert torch.equal(shown[changed], GRID.apply(shown[changed]))
    # Beside the watermark, an image shows its own pixels or those of another class.
    other = (unmarked(shown) != unmarked(clean.images)).any(1)
    assert other.sum() == round(replaced * OWN)
    assert not (other & ~changed).any()
    foreign = unmarked(clean.images[clean.labels != TARGET])
    for row in unmarked(shown[other]):
        assert (row == foreign).all(1).any()


@given(fractions, st.integers(0, 5))
def test_without_replaced_images_it_is_a_clean_label_backdoor(fraction, seed):
    clean = image_set()
    poison = Backdoor(
        trigger=GRID, target="dog", rate=fraction / len(NAMES), variant=CleanLabel(), seed=seed
    )
    expected = poison(clean, NAMES)
    result = watermark(fraction=fraction, seed=seed)(clean, NAMES)
    assert torch.equal(result.images.images, expected.images.images)
    assert torch.equal(result.is_corrupted, expected.is_corrupted)
    assert result.backdoor == replace(expected.backdoor, is_watermark=True)


def test_log_and_page_call_it_a_watermark():
    data = image_data(Blobs())
    data.corrupt(watermark(target=1, fraction=1))
    row = corruption_row(data)
    assert row["kind"] == "watermark"
    assert corruption_line(row).startswith("watermark of the class 'middle' (index 1); 20 of 60 ")


@given(fractions, fractions, st.integers(0, 5))
def test_a_lower_fraction_marks_a_part_of_the_same_images(first, second, seed):
    lower, higher = (
        watermark(fraction=fraction, seed=seed)(image_set(), NAMES).is_corrupted
        for fraction in sorted((first, second))
    )
    assert not (lower & ~higher).any()


def test_a_seed_gives_one_result():
    first, same, other = (
        watermark(fraction=0.5, replaced=0.5, seed=seed)(image_set(), NAMES).images.images
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


REFUSED = {
    "corruption.fraction is 0, so that no image": lambda: watermark(fraction=0),
    "corruption.fraction is 2: give": lambda: watermark(fraction=2),
    "corruption.replaced is -1: give": lambda: watermark(replaced=-1),
    "corruption.replaced is 0.5 and corruption.fraction is 0.4, and only": lambda: watermark(
        fraction=0.4, replaced=0.5
    ),
    "corruption.target is 'cow', and there is no such class": lambda: watermark(target="cow")(
        image_set(), NAMES
    ),
    "class 'dog' (index 1) has no training images that could have a watermark": lambda: watermark()(
        image_set(torch.zeros(COUNT, dtype=torch.long)), NAMES
    ),
    "replaced is 0.5, and there are no training images of other classes than 'dog'": lambda: (
        watermark(replaced=0.5)(image_set(torch.ones(COUNT, dtype=torch.long)), NAMES)
    ),
    "changes no pixel of the 20 training images": lambda: watermark()(
        ImageSet(GRID.apply(image_set().images), image_set().labels), NAMES
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_an_impossible_watermark_is_refused(message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        REFUSED[message]()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
