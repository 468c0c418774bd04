"""Layers by name, and what they give."""

import pytest
import torch
from conftest import small_mlp
from test_attention import IMAGES, SHAPE, Foreign, built
from torch import nn

from cwx.networks.layers import feature_layer, layer_outputs, spatial_layers

SETTING = "procedure.objective.layer"


def test_the_search_leaves_the_network_as_it_was():
    network = built("convnet").train()
    network.features[1].eval()
    modes = [module.training for module in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    names = spatial_layers(network, IMAGES.shape[1:])
    assert names[-2:] == ["features.7", "features"]
    assert [module.training for module in network.modules()] == modes
    assert all(not module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[n], tensor) for n, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [(None, "features"), ("features.3", "features.3"), ("classifier", "classifier")],
)
def test_features_are_of_any_layer_and_by_default_the_last_maps(name, expected):
    network = built("convnet")
    assert feature_layer(network, IMAGES.shape[1:], name, SETTING) == expected


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        ("convnet", "feature", "is 'feature', which is no layer of ConvNet .* such as features,"),
        ("convnet", "", "is '', which is no layer of ConvNet"),
        ("foreign", "unused", "is 'unused', which is no layer of Foreign"),
        ("foreign", "pair", "is 'pair', .* that gives an output for each image"),
    ],
)
def test_a_wrong_layer_is_answered_with_the_nearest(network, name, message):
    with pytest.raises(ValueError, match=f"{SETTING} {message}"):
        feature_layer(built(network), IMAGES.shape[1:], name, SETTING)


def test_a_network_without_maps_needs_a_name():
    network = small_mlp(**SHAPE)
    with pytest.raises(ValueError, match=f"no layer of MLP gives maps.* as {SETTING}"):
        feature_layer(network, IMAGES.shape[1:], None, SETTING)
    named = dict(network.named_modules())
    name = next(name for name, module in named.items() if isinstance(module, nn.Linear))
    assert feature_layer(network, IMAGES.shape[1:], name, SETTING) == name


def test_what_a_layer_gives_is_kept_from_what_works_in_place():
    network = Foreign().double()
    with layer_outputs(network, "again") as given:
        network(IMAGES)
    first = network.relu(network.stem(IMAGES))
    torch.testing.assert_close(given[0], network.again(first))
    torch.testing.assert_close(given[1], network.again(network.relu(given[0].clone())))
    assert len(given) == 2
    assert given[1].min() < 0


def test_the_hook_is_given_back_after_a_failure():
    network = built("convnet")
    with pytest.raises(RuntimeError), layer_outputs(network, "features.0") as given:
        network(IMAGES[:, :2])
    assert not given
    assert all(not module._forward_hooks for module in network.modules())
