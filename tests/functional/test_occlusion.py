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
        there = covered[top : top + size, left : left + size]
        assert there.shape == (size, size)
        there += 1
    assert covered.min() >= 1
    assert occluders.patches.shape == (len(occluders.corners), 2, size, size)
    assert 0 <= occluders.patches.min() <= occluders.patches.max() <= 1
    again = random_occluders(shape, size=size, stride=stride, generator=stream(seed))
    assert torch.equal(occluders.patches, again.patches)


def test_the_settings_of_the_paper_give_about_5000_occluders():
    occluders = random_occluders((1, 224, 224), size=11, stride=3, generator=stream(0))
    assert len(occluders.corners) == 72**2


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
