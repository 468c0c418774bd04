import torch

from cwx.functional.rng import stream


def draw(*key):
    return torch.rand(4, generator=stream(*key))


def test_a_key_gives_one_stream_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    assert torch.equal(draw(1, 2), draw(1, 2))
    assert not torch.equal(draw(1, 2), draw(2, 1))
    assert not torch.equal(draw(1), draw(1, 0))
    assert torch.equal(state, torch.get_rng_state())
