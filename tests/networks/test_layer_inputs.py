"""Penultimate features of any network."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from cwx.cli.run import configuration_folder
from cwx.networks.eval_mode import freeze
from cwx.networks.layer_inputs import layer_inputs

SMALL = configuration_folder() / "scale/small/network"


@pytest.mark.parametrize("name", sorted(file.stem for file in SMALL.glob("*.yaml")))
def test_every_network_decides_by_them_alone(name):
    whole = OmegaConf.load(SMALL.parents[2] / "network" / f"{name}.yaml")
    if "defaults" in whole:
        base = OmegaConf.load(SMALL.parents[2] / "network" / f"{whole.pop('defaults')[0]}.yaml")
        whole = OmegaConf.merge(base, whole)
    make = instantiate(OmegaConf.merge(whole, OmegaConf.load(SMALL / f"{name}.yaml")))
    network = freeze(make(in_channels=3, image_size=(32, 32), num_classes=4))
    images = torch.rand(2, 3, 32, 32)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with layer_inputs(network, None) as features:
        found = features(images)
    assert found.shape == (2, linear.in_features)
    torch.testing.assert_close(linear(found), network(images))


class Two(nn.Module):
    """One layer is never passed."""

    def __init__(self):
        super().__init__()
        self.first, self.idle, self.last = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(3, 2)

    def forward(self, images):
        return self.last(self.first(images.flatten(1)).relu())


def test_a_layer_may_be_named_and_gradients_flow():
    network, images = Two(), torch.rand(5, 1, 2, 2, requires_grad=True)
    with layer_inputs(network, "first") as features:
        assert torch.equal(features(images), images.flatten(1))
    with layer_inputs(network, None) as features:
        (gradient,) = torch.autograd.grad(features(images).sum(), images)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        (Two(), "frist", "no layer 'frist': the nearest are first"),
        (Two(), "idle", "does not pass its layer 'idle'"),
        (nn.Flatten(), None, r"no linear layer .* \(dataset_construction.algorithm.layer\)"),
    ],
)
def test_refused_and_the_hook_is_given_back(network, name, message):
    with (
        pytest.raises(ValueError, match=message),
        layer_inputs(network, name) as features,
    ):
        features(torch.rand(1, 1, 2, 2))
    assert not any(module._forward_pre_hooks for module in network.modules())
