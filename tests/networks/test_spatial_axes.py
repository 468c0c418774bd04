"""Layers whose maps are channels first, channels last, or tokens."""

from types import SimpleNamespace

import pytest
import torch
from support import token_networks as nets
from torch import nn

from cwx.data.splits import ImageSet
from cwx.evaluations.neurons.top_images import audit_layers
from cwx.evaluations.patterns.attention import Attention
from cwx.explanations.patterns import Patterns
from cwx.methods.gradcam import GradCamRegions
from cwx.networks.layers import attention_layer, feature_layer
from cwx.networks.spatial_axes import SpatialAxes
from cwx.networks.unit_layers import UnitLayer, UnitLayers
from cwx.networks.unit_outputs import unit_outputs
from cwx.training.plan import Plan

# The default layer, and the last layer of units.
ACCEPTED = {
    nets.resnet: ("layer4", "layer4.0.bn2"),
    nets.convnext: ("features", "features.3.0.block.5"),
    nets.swin: ("permute", "features.3.0.mlp.3"),
    nets.maxvit: ("blocks.0", "blocks.0.layers.0.layers.grid_attention.mlp_layer.3"),
    nets.Plain: ("relu", "stem"),
    nets.Shuffled: ("relu", "relu"),
}
REFUSED = {
    nets.vit: r"\[1, 16, 4, 4\] of 'conv_proj', become tokens \(shape \[1, 17, 16\]\)",
    nets.Hybrid: r"of 'k_norm', are tokens \(shape \[1, 2, 64, 8\]\)",
    lambda: nets.swin(4): r"of 'norm', are channels-last maps \(shape \[1, 1, 1, 64\]\)",
    nets.ChannelsLast: r"of 'norm', are channels-last maps \(shape \[1, 16, 16, 8\]\)",
    nets.PooledTokens: r"of 'relu', become tokens \(shape \[1, 256, 8\]\)",
    nets.Attention: r"of 'relu', become tokens \(shape \[1, 256, 8\]\)",
}


@pytest.mark.parametrize("factory", ACCEPTED)
def test_the_default_layer_gives_the_maps_that_the_classifier_pools(factory):
    layer, unit_layer = ACCEPTED[factory]
    network = nets.build(factory)
    # A small image leaves the last stage of the residual network a single position.
    shape = (3, 64, 64) if factory == nets.resnet else nets.SHAPE
    name = attention_layer(network, shape, None, "x")
    assert name.startswith(layer)
    layers = audit_layers(network, shape, None, "x.layers")
    assert layers[-1].name == unit_layer
    assert UnitLayers(network, shape).last(None, "x.layer") == layers[-1]


@pytest.mark.parametrize("factory", REFUSED)
@pytest.mark.parametrize("choose", [attention_layer, feature_layer])
def test_networks_that_pool_no_maps_have_no_default_layer(factory, choose):
    network = nets.build(factory)
    with pytest.raises(ValueError, match=REFUSED[factory]) as caught:
        choose(network, nets.SHAPE, None, "method.gradcam.layer")
    assert "set method.gradcam.layer to a layer that gives maps" in str(caught.value)
    assert "\n" not in str(caught.value)


NAMED = [
    (nets.vit, "encoder", "tokens"),
    (nets.vit, "encoder.layers.encoder_layer_0.mlp", "tokens"),
    (nets.Hybrid, "k_norm", "tokens"),
    (nets.Hybrid, "proj", "tokens"),
    (nets.swin, "features", "channels-last maps"),
    (nets.swin, "features.1.0", "channels-last maps"),
    (nets.convnext, "features.1.0.block.2", "channels-last maps"),
    (nets.ChannelsLast, "linear", "channels-last maps"),
]


@pytest.mark.parametrize(("factory", "name", "seen"), NAMED)
def test_a_named_layer_without_channels_on_its_second_axis_is_refused(factory, name, seen):
    network = nets.build(factory)
    with pytest.raises(ValueError, match=f"x.layer is '{name}'.* gives (maps of|{seen})"):
        attention_layer(network, nets.SHAPE, name, "x.layer")
    for kept in ("conv_proj", "stem", "features.0.0"):
        if kept in dict(network.named_modules()):
            assert attention_layer(network, nets.SHAPE, kept, "x.layer") == kept
            (layer,) = audit_layers(network, nets.SHAPE, [kept], "x.layers")
            assert layer.name == kept


@pytest.mark.parametrize(
    ("factory", "name", "axis"),
    [
        (nets.vit, "encoder", 2),
        (nets.vit, "encoder.layers.encoder_layer_0.mlp.0", 2),
        (nets.Hybrid, "proj", 2),
        (nets.swin, "features.1.0", 3),
        (nets.convnext, "features.1.0.block.2", 3),
        # A norm follows, and a permutation to [n, channels, h, w].
        (nets.ChannelsLast, "linear", 1),
    ],
)
def test_units_of_tokens_and_of_channels_last_maps_are_channels(factory, name, axis):
    network = nets.build(factory)
    (layer,) = audit_layers(network, nets.SHAPE, [name], "x.layers")
    assert layer.axis == axis
    with unit_outputs(network, [layer]) as outputs, torch.no_grad():
        units = outputs(torch.rand(2, *nets.SHAPE))[name]
    with unit_outputs(network, [UnitLayer(name=name)]) as outputs, torch.no_grad():
        before = outputs(torch.rand(2, *nets.SHAPE))[name]
    assert units.shape == before.movedim(-1, 1).shape


def test_keys_of_attention_heads_are_no_units():
    network = nets.build(nets.Hybrid)
    with pytest.raises(ValueError, match=r"x.layers has 'k_norm', .* gives tokens"):
        audit_layers(network, nets.SHAPE, ["k_norm"], "x.layers")
    with pytest.raises(ValueError, match="x.layer is 'k_norm', .* gives tokens"):
        UnitLayers(network, nets.SHAPE).last("k_norm", "x.layer")


@pytest.mark.parametrize("factory", [nets.vit, nets.Hybrid, lambda: nets.swin(4)])
def test_every_part_that_reads_maps_refuses_before_training(factory):
    labels = torch.arange(nets.CLASSES)
    data = SimpleNamespace(
        image_shape=nets.SHAPE,
        image_size=nets.SHAPE[1:],
        classes=[str(c) for c in range(nets.CLASSES)],
        splits=SimpleNamespace(test=ImageSet(torch.zeros(nets.CLASSES, *nets.SHAPE), labels)),
    )
    plan = Plan(
        data=data,
        methods=["m"],
        held_out=0,
        leaves={"m": Patterns},
        networks={"network": lambda **_: factory()},
    )
    checks = {
        "method.m.layer": lambda: GradCamRegions.check(plan, stage="m", classes=None, layer=None),
        "evaluation.attention.layer": lambda: Attention(
            source="m", size=0.1, images=1, layer=None
        ).check(plan),
    }
    for setting, check in checks.items():
        with pytest.raises(ValueError, match=f"there is no default for {setting}"):
            check()


# Functions of maps, and the axes of height and width in their result.
FUNCTIONS = {
    "permute": (lambda x: x.permute(0, 2, 3, 1), (1, 2)),
    "negative axes": (lambda x: x.permute(0, -2, -1, -3), (1, 2)),
    "movedim": (lambda x: torch.movedim(x, 1, -1), (1, 2)),
    "transpose": (lambda x: x.transpose(1, 2).transpose(2, 3), (1, 2)),
    "there and back": (lambda x: (x.permute(0, 2, 3, 1) * 2 + 1).permute(0, 3, 1, 2), (2, 3)),
    "in place": (lambda x: (x.permute(0, 2, 3, 1) + 0).relu_(), (1, 2)),
    "norm": (lambda x: nn.functional.layer_norm(x.permute(0, 2, 3, 1), [8]), (1, 2)),
    "weights": (lambda x: x.permute(0, 2, 3, 1) @ torch.ones(8, 3), (1, 2)),
    "parts": (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), (2, 3)),
    "heads": (lambda x: x.permute(0, 2, 3, 1).reshape(1, 6, 6, 2, 4), (1, 2)),
    "groups": (lambda x: x.view(1, 2, 4, 6, 6).transpose(1, 2).reshape(1, 8, 6, 6), (2, 3)),
    "pool": (lambda x: nn.functional.max_pool2d(x, 2), (2, 3)),
    "windows": (lambda x: x.view(1, 8, 3, 2, 3, 2).permute(0, 2, 4, 3, 5, 1), None),
    "tokens": (lambda x: x.flatten(2).mT, None),
    "maps of tokens": (lambda x: x.flatten(2).reshape(1, 8, 6, 6), None),
    "convolution of them": (
        lambda x: nn.functional.conv2d(x.flatten(2).reshape(1, 8, 6, 6), torch.ones(2, 8, 1, 1)),
        (2, 3),
    ),
    "product of maps": (lambda x: x @ x, None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_keep_move_or_lose_the_spatial_axes(name):
    function, expected = FUNCTIONS[name]
    image = torch.zeros(1, 8, 6, 6)
    with SpatialAxes(image) as axes:
        result = function(image)
    assert axes.of(result) == expected
