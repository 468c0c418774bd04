"""Inputs of a layer: by default, the penultimate features of any network."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from cwx.cli.config.groups import configuration_folder
from cwx.networks.eval_mode import freeze
from cwx.networks.layer_inputs import layer_inputs

SETTING = "dataset_construction.algorithm.layer"
SMALL = configuration_folder() / "scale/small/network"


@pytest.mark.parametrize("name", sorted(file.stem for file in SMALL.glob("*.yaml")))
def test_logits_are_the_last_linear_layer_of_the_features(name):
    config = OmegaConf.load(SMALL.parents[2] / "network" / f"{name}.yaml")
    if "defaults" in config:
        base = OmegaConf.load(SMALL.parents[2] / "network" / f"{config.pop('defaults')[0]}.yaml")
        config = OmegaConf.merge(base, config)
    factory = instantiate(OmegaConf.merge(config, OmegaConf.load(SMALL / f"{name}.yaml")))
    network = freeze(factory(in_channels=3, image_size=(32, 32), num_classes=4))
    images = torch.rand(2, 3, 32, 32)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with layer_inputs(network, None, SETTING) as features:
        penultimate = features(images)
    assert penultimate.shape == (2, linear.in_features)
    torch.testing.assert_close(linear(penultimate), network(images))


class UnusedLayer(nn.Module):
    """Has a layer that the forward pass does not use."""

    def __init__(self):
        super().__init__()
        self.first, self.idle, self.last = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(3, 2)

    def forward(self, images):
        return self.last(self.first(images.flatten(1)).relu())


def test_a_layer_is_selected_by_name_and_features_are_differentiable():
    network, images = UnusedLayer(), torch.rand(5, 1, 2, 2, requires_grad=True)
    # With random weights, all units may be inactive.
    torch.nn.init.constant_(network.first.weight, 0.5)
    torch.nn.init.constant_(network.first.bias, 0.5)
    with layer_inputs(network, "first", SETTING) as features:
        assert torch.equal(features(images), images.flatten(1))
    with layer_inputs(network, None, SETTING) as features:
        (gradient,) = torch.autograd.grad(features(images).sum(), images)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        (UnusedLayer(), "frist", "no layer 'frist': the nearest are first"),
        (UnusedLayer(), "idle", "does not run its layer 'idle'"),
        (nn.Flatten(), None, r"no linear layer .* set dataset_construction.algorithm.layer to"),
    ],
)
def test_an_unusable_layer_is_refused_and_the_hook_is_removed(network, name, message):
    with (
        pytest.raises(ValueError, match=message),
        layer_inputs(network, name, SETTING) as features,
    ):
        features(torch.rand(1, 1, 2, 2))
    assert not any(module._forward_pre_hooks for module in network.modules())


class TokenHead(nn.Module):
    """The last linear layer works on tokens; a convolution gives the logits."""

    def __init__(self):
        super().__init__()
        self.linear, self.head = nn.Linear(3, 4), nn.Conv1d(4, 2, 1)

    def forward(self, images):
        return self.head(self.linear(images.flatten(2).mT).mT).mean(2)


def test_inputs_of_tokens_are_no_default_features():
    images = torch.rand(5, 3, 2, 2)
    with (
        pytest.raises(ValueError, match=r"of TokenHead takes inputs of shape \(5, 4, 3\), such as"),
        layer_inputs(TokenHead(), None, SETTING) as features,
    ):
        features(images)
    with layer_inputs(TokenHead(), "head", SETTING) as features:
        assert features(images).shape == (5, 16)
