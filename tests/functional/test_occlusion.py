"""Discrepancy maps equal the literal form, and locate a neuron whose position is known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import references

from cwx.functional.occlusion import discrepancy, random_occluders
from cwx.functional.rng import stream


@pytest.mark.parametrize(("size", "stride", "chunk"), [(3, 2, 4), (2, 1, 100), (4, 4, 1)])
def test_a_map_is_the_mean_over_occluders_one_by_one(size, stride, chunk):
    image = torch.rand(2, 6, 5, generator=stream(1)).double()
    kernels = torch.rand(3, 2, 3, 3, generator=stream(2)).double()

    def activations(images):
        return torch.conv2d(images, kernels).amax((2, 3))

    occluders = random_occluders((2, 6, 5), size=size, stride=stride, generator=stream(0))
    found = discrepancy(activations, image, occluders, chunk=chunk)
    for neuron in range(3):
        expected = references.discrepancy_map(
            lambda one, neuron=neuron: activations(one[None])[0, neuron],
            image,
            occluders.corners.tolist(),
            occluders.patches.double(),
            stride,
        )
        torch.testing.assert_close(found[neuron], torch.tensor(expected, dtype=torch.float64))


def test_the_map_is_high_where_the_neuron_looks():
    image = torch.zeros(1, 8, 8)
    image[0, 2, 5] = 9
    occluders = random_occluders((1, 8, 8), size=2, stride=1, generator=stream(0))
    (found,) = discrepancy(lambda images: images.amax((2, 3)), image, occluders, chunk=64)
    assert divmod(int(found.argmax()), 8) == (2, 5)
    near = torch.zeros(8, 8, dtype=torch.bool)
    near[1:4, 4:7] = True
    assert (found[near] > 0).all()
    assert (found[~near] == 0).all()


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9)
)
def test_every_pixel_is_covered_and_none_beyond(height, width, size, stride, seed):
    if size > min(height, width) or stride > size:
        return
    shape = (2, height, width)
    occluders = random_occluders(shape, size=size, stride=stride, generator=stream(seed))
    covered = torch.zeros(height, width)
    for top, left in occluders.corners.tolist():
        covered[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] += 1
    assert covered.min() >= 1
    # Pixels at the border are in as many occluders as those in the middle, within a step.
    assert covered.max() <= (-(-size // stride)) ** 2
    assert covered.min() >= (size // stride) ** 2
    assert occluders.patches.shape == (len(occluders.corners), 2, size, size)
    assert 0 <= occluders.patches.min() <= occluders.patches.max() <= 1
    again = random_occluders(shape, size=size, stride=stride, generator=stream(seed))
    assert torch.equal(occluders.patches, again.patches)


def test_the_settings_of_the_paper_give_about_5000_occluders_and_a_border():
    occluders = random_occluders((1, 224, 224), size=11, stride=3, generator=stream(0))
    assert len(occluders.corners) == (72 + 7) ** 2
    inside = ((occluders.corners >= 0) & (occluders.corners <= 224 - 11)).all(1)
    assert inside.sum() == 71**2


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_all_occluders_fit_into_the_image(height, width, size, stride):
    """Also those that begin beyond it: only pixels of the image change."""
    if size > min(height, width) or stride > size:
        return
    occluders = random_occluders((1, height, width), size=size, stride=stride, generator=stream(0))
    copies = occluders.on(torch.full((1, height, width), 2.0))
    assert copies.shape == (len(occluders.corners), 1, height, width)
    assert ((copies == 2) | (copies <= 1)).all()
    assert (copies != 2).any(0).all()


@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [((3, 32, 32), 5, 2), ((1, 8, 8), 2, 1), ((3, 24, 40), 7, 3)],
)
def test_under_noise_the_border_has_its_fraction_of_highlighted_pixels(shape, size, stride):
    """Before, 55 % of them lay in the outer 2 pixels of 32x32 images, 23 % of the area."""
    occluders = random_occluders(shape, size=size, stride=stride, generator=stream(0))
    noise = stream(1)
    maps = discrepancy(
        lambda images: torch.randn(len(images), 400, generator=noise),
        torch.zeros(shape),
        occluders,
        chunk=50,
    )
    highlighted = maps >= 0.5 * maps.amax((1, 2), keepdim=True)
    border = 1 - highlighted[:, 2:-2, 2:-2].sum() / highlighted.sum()
    area = 1 - (shape[1] - 4) * (shape[2] - 4) / (shape[1] * shape[2])
    assert border == pytest.approx(area, rel=0.1)


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        (5, 1, "an occluder of 5x5 pixels does not fit an image of 4x6: give it a size of 1 to 4"),
        (0, 1, "an occluder of 0x0"),
        (2, 3, "2x2 pixels, 3 apart, leave pixels uncovered: give a stride of 1 to 2"),
        (2, 0, "2x2 pixels, 0 apart"),
    ],
)
def test_unfit_occluders_are_refused(size, stride, message):
    with pytest.raises(ValueError, match=message):
        random_occluders((3, 4, 6), size=size, stride=stride, generator=stream(0))
