"""Top images of all layers in one pass equal those of one layer and one image at a time."""

import logging

import pytest
import torch
from support.builders import small_mlp
from torch import nn

from cwx.evaluations.neurons.top_images import Audit, audit_layers, normalized_batches, top_count
from cwx.functional.images import Normalization
from cwx.functional.top_activations import spatial_maximum, spatial_mean
from cwx.networks.resnet import ResNet, basic_block
from cwx.networks.unit_layers import UnitLayer

SHAPE = (3, 8, 8)
NORMALIZATION = Normalization(mean=(0.5,) * 3, std=(0.25,) * 3)
IMAGES = torch.randint(
    0, 256, (30, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ResNet(
            stages=[1, 1],
            block=basic_block,
            width=4,
            norm=nn.BatchNorm2d,
            in_channels=3,
            image_size=(8, 8),
            num_classes=5,
        )
        for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
            nn.init.normal_(norm.weight)
        return net.eval()


def audit(layers, *, fraction=0.1, size=7, activation=spatial_maximum):
    batches = normalized_batches(
        IMAGES.split(11), NORMALIZATION, size=size, device=torch.device("cpu")
    )
    run = Audit(
        layers=layers if isinstance(layers[0], UnitLayer) else named(layers),
        activation=activation,
        fraction=fraction,
    )
    return run(network(), batches, len(IMAGES))


def named(layers):
    """Layers read at their output."""
    return [UnitLayer(name=name) for name in layers]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_top_images_equal_those_found_image_by_image(size):
    net = network()
    layers = audit_layers(net, SHAPE, None, "x")
    top = audit(layers, size=size)
    assert list(top) == [layer.name for layer in layers]
    parts = {
        "stem.1": net.stem,
        "blocks.0.residual.1": nn.Sequential(net.stem, *net.blocks[0].residual[:3]),
        # After the addition and its ReLU.
        "blocks.0.residual.4": nn.Sequential(net.stem, net.blocks[0]),
        "blocks.1.residual.4": nn.Sequential(net.stem, net.blocks),
    }
    for name, part in parts.items():
        with torch.no_grad():
            rows = [part(NORMALIZATION.from_bytes(i[None])).amax((2, 3))[0] for i in IMAGES]
        values = torch.stack(rows).sort(dim=0, descending=True, stable=True)
        fires = top[name].responding
        assert fires.any()
        assert torch.equal(top[name].indices[fires], values.indices[:3][fires])
        torch.testing.assert_close(top[name].values, values.values[:3])
        torch.testing.assert_close(top[name].threshold, values.values[3])


def test_units_of_a_block_are_read_once_though_two_convolutions_add_up_to_them():
    names = [layer.name for layer in audit_layers(network(), SHAPE, None, "x")]
    assert names[-1] == "blocks.1.residual.4"
    assert not any("shortcut" in name for name in names)


def test_a_channel_that_never_fires_has_no_top_images():
    """Its maximum before the ReLU, always below 0, is still higher for some images."""
    net = network()
    nn.init.constant_(net.stem[1].bias, -999)
    batch = torch.arange(len(IMAGES)), NORMALIZATION.from_bytes(IMAGES)
    for before, fires in ((True, True), (False, False)):
        layers = audit_layers(net, SHAPE, ["stem.1"], "x", before_nonlinearity=before)
        run = Audit(layers=layers, activation=spatial_maximum, fraction=0.1)
        assert run(net, [batch], len(IMAGES))["stem.1"].responding.any() == fires


def test_the_activation_can_be_a_spatial_mean():
    with torch.no_grad():
        means = network().stem[:2](NORMALIZATION.from_bytes(IMAGES)).mean((2, 3))
    top = audit(["stem.1"], activation=spatial_mean)["stem.1"]
    torch.testing.assert_close(top.values, means.topk(3, 0).values)


@pytest.mark.parametrize(
    ("fraction", "count", "k"), [(0.01, 50_000, 500), (0.01, 500_000, 5000), (0.29, 100, 29)]
)
def test_k_is_the_rounded_fraction_of_the_images(fraction, count, k, caplog):
    assert top_count(fraction, count) == k
    assert not caplog.records


def test_a_fraction_below_one_image_gives_k_1_and_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert top_count(0.01, 24) == 1
    assert "a fraction of 0.01 of 24 images is less than one" in caplog.text


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.two, self.one = self.Two(), nn.Flatten(0)
        self.slope = nn.Parameter(torch.ones(()))

    class Two(nn.Module):
        def forward(self, images):
            return images, images

    def forward(self, images):
        return self.slope * self.one(self.two(images)[0])


@pytest.mark.parametrize(
    ("net", "layers", "message"),
    [
        (
            network(),
            ["stem.1", "blocks.0.residul"],
            r"^x: ResNet .*'blocks.0.residul': the nearest",
        ),
        (network(), [], "^x is empty: name a layer of ResNet or more"),
        (
            small_mlp(in_channels=3, image_size=(8, 8), num_classes=2),
            None,
            "^x is null, and MLP has no convolution: name",
        ),
        (Pair(), ["two"], "^x has 'two', but that layer of Pair gives no tensor"),
        (Pair(), ["one"], "^x has 'one', but"),
    ],
)
def test_missing_layers_and_layers_without_channels_are_refused(net, layers, message):
    with pytest.raises(ValueError, match=message):
        audit_layers(net, SHAPE, layers, "x")


def test_audit_layers_leaves_mode_and_state_of_a_network_unchanged():
    net = network().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    layers = audit_layers(net, SHAPE, ["classifier", "stem"], "x")
    assert [layer.name for layer in layers] == ["classifier", "stem"]
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_nan_activations_are_refused():
    net = network()
    nn.init.constant_(net.stem[0].weight, float("nan"))
    run = Audit(layers=named(["stem.1"]), activation=spatial_maximum, fraction=0.1)
    batch = torch.arange(len(IMAGES)), NORMALIZATION.from_bytes(IMAGES)
    with pytest.raises(ValueError, match="the network has diverged"):
        run(net, [batch], len(IMAGES))
