"""Networks with re-drawn weights."""

import torch
from torch import nn

from cwx.training.redrawn import redraw_weights


def network():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    )
    layers(torch.randn(16, 3, 8, 8))
    return layers.eval().requires_grad_(False)


def test_weights_are_permuted_and_all_else_stays():
    before, after, images = network(), network(), torch.randn(32, 3, 8, 8)
    redraw_weights(after, images, seed=0)
    for name, old in before.named_parameters():
        new = after.get_parameter(name)
        if old.ndim > 1:
            assert not torch.equal(old, new)
            assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
        else:
            assert torch.equal(old, new)
    assert not any(module.training for module in after.modules())
    assert not torch.allclose(before(images), after(images))


def test_running_statistics_are_those_of_the_new_weights():
    redrawn, images = network(), torch.randn(64, 3, 8, 8)
    redraw_weights(redrawn, images, seed=0)
    outputs = redrawn[0](images)
    assert torch.allclose(redrawn[1].running_mean, outputs.mean((0, 2, 3)), atol=1e-5)
    assert redrawn[1].momentum == 0.1


def test_the_seed_decides():
    networks = [network() for _ in range(3)]
    for redrawn, seed in zip(networks, (0, 0, 1), strict=True):
        redraw_weights(redrawn, torch.randn(8, 3, 8, 8), seed)
    first, second, third = (n[4].weight for n in networks)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
