"""Units are read and changed after the normalisation, the addition and the non-linearity."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from cwx.functional.top_activations import spatial_maximum
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


class Tokens(nn.Module):
    """A transformer with a class token; `order` is that of the operands of its additions."""

    def __init__(self, *, order=1, batch_first=True):
        super().__init__()
        self.stem, self.token = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.rand(1, 1, 8))
        self.blocks = nn.ModuleList(self.Block(order) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)
        self.batch_first = batch_first

    class Block(nn.Module):
        def __init__(self, order):
            super().__init__()
            self.order = order
            self.norm, self.mix = nn.LayerNorm(8), nn.Linear(8, 8)
            self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

        def forward(self, x):
            y = self.mix(self.norm(x))
            x = x + y if self.order > 0 else y + x
            return x + self.mlp(x) if self.order > 0 else self.mlp(x) + x

    def forward(self, images):
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        if not self.batch_first:
            x = x.permute(1, 0, 2)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.batch_first else x[0])


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_a_class_token_and_the_order_of_operands_change_no_unit(order, before):
    units = UnitLayers(build(lambda: Tokens(order=order)), SHAPE, before_nonlinearity=before)
    assert [(layer.name, layer.place) for layer in units.all("x")] == [
        (f"blocks.{block}.{name}", "output" if before else place)
        for block in range(2)
        for name, place in (
            ("mix", "addition"),
            ("mlp.0", "gelu"),
            ("mlp.2", "addition" if not block else "normalisation"),
        )
    ]
    assert units.last(None, "x").name == "blocks.1.mlp.2"


def test_rows_that_are_no_images_are_refused():
    network = build(lambda: Tokens(batch_first=False))
    with pytest.raises(ValueError, match="works on tokens"):
        UnitLayers(network, SHAPE).all("x")
    with pytest.raises(ValueError, match="x has 'blocks.0.mlp', "):
        UnitLayers(network, SHAPE).named(["blocks.0.mlp"], "x")
    layer = UnitLayer(name="blocks.0.mlp", axis=2)
    with (
        pytest.raises(ValueError, match="'blocks.0.mlp' gives 17 rows for 4 images"),
        unit_outputs(network, [layer]) as outputs,
    ):
        outputs(IMAGES)


class Keywords(nn.Module):
    """Functions whose tensor has a name, a norm of whole maps, and channels of two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.whole, self.norm = nn.LayerNorm([4, 32, 32]), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        x = torch.relu(input=self.whole(self.first(images)))
        x = F.relu(self.norm(torch.cat([x, self.second(images)], 1)))
        return self.head(x.mean((2, 3)))


def test_keywords_norms_of_whole_maps_and_concatenations_keep_the_channels():
    network = build(Keywords)
    units = UnitLayers(network, SHAPE)
    found = {layer.name: layer for layer in units.named(["whole", "norm"], "x")}
    assert found["whole"] == UnitLayer(name="whole", functions=("relu",), place="relu")
    assert found["norm"] == UnitLayer(name="norm", functions=("relu",), place="relu")
    seen = []
    with changed_units(network, found["whole"], seen.append):
        network(IMAGES)
    torch.testing.assert_close(seen[0], network.whole(network.first(IMAGES)).relu())


def test_a_layer_that_does_not_run_is_refused():
    network = build(Ways)
    network.extra = nn.Conv2d(3, 3, 1)
    with (
        pytest.raises(ValueError, match="does not run its layer 'extra'"),
        unit_outputs(network, [UnitLayer(name="extra")]) as outputs,
    ):
        outputs(IMAGES)
    assert not [h for m in network.modules() for h in m._forward_hooks]


@pytest.mark.parametrize("before", [False, True])
def test_two_summands_of_one_addition_are_refused_where_they_are_the_same_units(before):
    network = build(models.resnet18)
    names = ["layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"]
    units = UnitLayers(network, SHAPE, before_nonlinearity=before)
    if before:
        assert [layer.name for layer in units.named(names, "x")] == names
        return
    with pytest.raises(ValueError, match=r"layer2\.0\.conv2 and layer2\.0\.downsample\.0") as error:
        units.named(names, "x")
    assert "after the same relu: remove one of them" in str(error.value)


def test_units_without_maps_are_read_before_a_function_that_overwrites_them():
    """Their activations are the tensor of the units itself."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(inplace=True), nn.Linear(4, 3))
    images = torch.randn(20, 3, 2, 2)
    with torch.no_grad():
        with unit_outputs(network, [UnitLayer(name="1")], spatial_maximum) as outputs:
            units = outputs(images)["1"]
        assert torch.equal(units, network[1](images.flatten(1)))
