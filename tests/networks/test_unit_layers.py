"""Units are read and changed after the normalisation, the addition and the non-linearity."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from cwx.networks.densenet import DenseNet
from cwx.networks.resnet import ResNet, basic_block
from cwx.networks.unit_layers import UnitLayer, UnitLayers
from cwx.networks.unit_outputs import changed_units, unit_outputs
from cwx.networks.vgg import VGG
from cwx.networks.wide_resnet import WideResNet

SHAPE = (3, 32, 32)
SIZES = {"in_channels": 3, "image_size": (32, 32), "num_classes": 5}
IMAGES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


class Ways(nn.Module):
    """A convolution for each way to write what follows it."""

    def __init__(self):
        super().__init__()
        self.inplace, self.function, self.method = (nn.Conv2d(3, 3, 3, padding=1) for _ in "abc")
        self.clamped, self.summed, self.shared = (nn.Conv2d(3, 3, 3, padding=1) for _ in "abc")
        self.first, self.second, self.pooled = (nn.Conv2d(3, 3, 3, padding=1) for _ in "abc")
        self.norm, self.relu = nn.BatchNorm2d(3), nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.rand(3, 1, 1) + 0.5)
        self.head = nn.Linear(3, 5)

    def forward(self, images):
        x = self.relu(self.norm(self.inplace(images)))
        x = F.gelu(self.function(x) * self.scale + 1)
        x = self.method(x).relu_()
        x = self.clamped(x).clamp(min=0)
        s = self.summed(x)
        s += x
        x = torch.sigmoid(s)
        y = self.shared(x)
        x = F.relu(y) + y
        x = F.relu(torch.cat([self.first(x), self.second(x)], 1)[:, :3])
        return self.head(self.pooled(x).mean((2, 3)))


def build(network):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network().eval().requires_grad_(False)


def places(network, shape=SHAPE, **settings):
    return {
        layer.name: (layer.place, layer.functions)
        for layer in UnitLayers(network, shape, **settings).all("x")
    }


def test_the_place_is_the_non_linearity_that_alone_takes_the_units():
    assert places(build(Ways)) == {
        "norm": ("relu", ("relu",)),
        "function": ("gelu", ("mul", "add", "gelu")),
        "method": ("relu", ("relu_",)),
        "clamped": ("clamp", ("clamp",)),
        "summed": ("sigmoid", ("add_", "sigmoid")),
        # Two functions take its output, or a concatenation or a mean.
        "shared": ("output", ()),
        "first": ("output", ()),
        "second": ("output", ()),
        "pooled": ("output", ()),
    }


def test_before_the_nonlinearity_units_are_read_after_the_normalisation():
    found = places(build(Ways), before_nonlinearity=True)
    assert found["norm"] == ("normalisation", ())
    assert found["function"] == ("normalisation", ("mul", "add"))
    assert found["summed"] == ("output", ())


def norm(channels):
    return nn.BatchNorm2d(channels)


# A network; names by part; the last layer and its place.
NETWORKS = {
    "resnet": (
        lambda: ResNet(stages=[1, 1], block=basic_block, width=4, norm=norm, **SIZES),
        "blocks.1.residual.4",
        "relu",
    ),
    "vgg": (lambda: VGG(blocks=[[4], [8, 8]], norm=norm, **SIZES), None, "relu"),
    "wide": (lambda: WideResNet(depth=10, widening=1, norm=norm, **SIZES), None, "relu"),
    # The classifier takes a norm and a ReLU of all features together.
    "densenet": (lambda: DenseNet(growth=4, blocks=[2, 2], norm=norm, **SIZES), "features", "relu"),
    "torchvision": (lambda: models.resnet18(num_classes=5), "layer4.1.bn2", "relu"),
    "mobile": (lambda: models.mobilenet_v3_small(num_classes=5), "features.12.1", "hardswish"),
}
SHAPES = {"torchvision": (3, 64, 64), "mobile": (3, 64, 64)}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_layer_of_known_networks(name):
    factory, expected, place = NETWORKS[name]
    network = build(factory)
    last = UnitLayers(network, SHAPES.get(name, SHAPE)).last(None, "x")
    assert expected is None or last.name == expected
    assert last.place == place
    images = torch.rand(2, *SHAPES.get(name, SHAPE))
    with unit_outputs(network, [last]) as outputs:
        units = outputs(images)[last.name]
    if place == "relu":
        assert units.min() == 0 < units.max()


def test_outputs_equal_those_of_a_literal_pass():
    network = build(Ways)
    names = ["norm", "method", "summed", "shared"]
    layers = UnitLayers(network, SHAPE).named(names, "x")
    with unit_outputs(network, [*layers, UnitLayer(name="")]) as outputs:
        found = outputs(IMAGES)
    x = network.norm(network.inplace(IMAGES)).relu()
    torch.testing.assert_close(found["norm"], x)
    x = network.method(F.gelu(network.function(x) * network.scale + 1)).relu()
    torch.testing.assert_close(found["method"], x)
    x = network.clamped(x).clamp(min=0)
    x = torch.sigmoid(network.summed(x) + x)
    torch.testing.assert_close(found["summed"], x)
    torch.testing.assert_close(found["shared"], network.shared(x))
    torch.testing.assert_close(found[""], network(IMAGES))
    assert not [h for m in network.modules() for h in m._forward_hooks]


@pytest.mark.parametrize("name", ["norm", "method", "summed", "clamped", "shared", "pooled"])
def test_a_change_reaches_the_rest_of_the_network(name):
    network, images = build(Ways).double(), IMAGES.double()
    (layer,) = UnitLayers(network, SHAPE).named([name], "x")
    # The logits depend on the image through these units alone.
    with changed_units(network, layer, torch.zeros_like):
        assert network(images).std(0).max() < 1e-12
    assert network(images).std(0).max() > 1e-7
    seen = []
    with changed_units(network, layer, seen.append):
        changed = network(images)
    torch.testing.assert_close(changed, network(images))
    assert [len(units) for units in seen] == [4]


def test_a_layer_that_does_not_run_is_refused():
    network = build(Ways)
    network.extra = nn.Conv2d(3, 3, 1)
    with (
        pytest.raises(ValueError, match="does not run its layer 'extra'"),
        unit_outputs(network, [UnitLayer(name="extra")]) as outputs,
    ):
        outputs(IMAGES)
    assert not [h for m in network.modules() for h in m._forward_hooks]
