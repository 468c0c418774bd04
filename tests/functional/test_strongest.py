import torch
from hypothesis import given
from hypothesis import strategies as st

from cwx.functional.strongest import Strongest, spatial_maximum


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 15), st.integers(0, 99))
def test_batches_do_not_change_what_is_strongest(size, count, images, seed):
    generator = torch.Generator().manual_seed(seed)
    # Few values, so that many are equal.
    activations = torch.randint(0, 4, (images, 3), generator=generator).float()
    found = Strongest(channels=3, count=count)
    for first in range(0, images, size):
        found.update(activations[first : first + size], first)
    for channel in range(3):
        values = activations[:, channel].tolist()
        order = sorted(range(images), key=lambda i: (-values[i], i))[:count]
        assert found.indices[channel].tolist() == order
        assert found.values[channel].tolist() == [values[i] for i in order]


def test_a_channel_is_as_active_as_its_most_active_place():
    maps = torch.tensor([[[[1.0, 5.0], [2.0, 3.0]], [[-1.0, -2.0], [-3.0, -4.0]]]])
    assert spatial_maximum(maps).tolist() == [[5, -1]]
