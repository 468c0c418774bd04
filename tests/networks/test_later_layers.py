"""Logits with other units equal those of whole passes, for networks of every kind."""

from functools import partial

import pytest
import torch
from captum.attr import LayerFeatureAblation
from torch import nn

from cwx.functional.unit_contributions import Ablation, logits_without_each
from cwx.networks.convnet import ConvNet
from cwx.networks.densenet import DenseNet
from cwx.networks.later_layers import LaterLayers
from cwx.networks.resnet import ResNet, basic_block
from cwx.networks.unit_layers import UnitLayer, UnitLayers

SHAPE = {"in_channels": 3, "image_size": (16, 16), "num_classes": 5}
SHAPE_OF_IMAGE = (3, 16, 16)
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Again(nn.Module):
    """A layer that runs twice, in place, and a channel that nothing reads."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 5)
        self.head.weight.data[:, 2] = 0

    def tail(self, maps):
        return self.head(maps.mean((2, 3)))

    def forward(self, images):
        return self.tail(self.relu(self.second(self.relu(self.first(images)))))


class Reshaping(nn.Module):
    """Reshapes to the number of its images, so that several units of one image do not fit."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 14 * 14, 5)

    def forward(self, images):
        return self.head(self.conv(images).reshape(len(images), -1))


def norm(channels):
    return nn.BatchNorm2d(channels)


NETWORKS = {
    "convnet": (
        lambda: ConvNet(depth=2, width=4, norm=norm, **SHAPE),
        {"features": True, "features.0": True},
    ),
    "resnet": (
        lambda: ResNet(stages=[1, 1], block=basic_block, width=4, norm=norm, **SHAPE),
        # The second lies beside a path around it.
        {"blocks": True, "blocks.0.residual.0": False},
    ),
    # Concatenates what comes before.
    "densenet": (lambda: DenseNet(growth=4, blocks=[2, 2], norm=norm, **SHAPE), None),
    "again": (Again, {"relu": True, "second": True}),
    "reshaping": (Reshaping, {"conv": True}),
}


def build_network(name):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return NETWORKS[name][0]().double().eval().requires_grad_(False)


def layers(name, network):
    names = NETWORKS[name][1]
    return names or {n: None for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}


def without_each(network, layer, images, *, is_bottleneck, chunk):
    later = LaterLayers(network, UnitLayer(name=layer), is_bottleneck=is_bottleneck)
    units, logits = later.read(images)
    ablation = Ablation(
        later=partial(later.logits, images),
        units=units,
        replacement=torch.zeros_like(units[:1])[None],
        chunk=chunk,
    )
    return logits, logits_without_each(ablation)


def literally(network, layer, image, channel):
    """The logits of the whole network with one channel of the layer's last run set to 0."""
    runs = []
    handle = layer.register_forward_hook(lambda *_: runs.append(None))
    network(image)
    handle.remove()
    last, seen = len(runs), []

    def silence(module, inputs, output):
        seen.append(None)
        if len(seen) == last and channel >= 0:
            output = output.clone()
            output[:, channel] = 0
        return output

    handle = layer.register_forward_hook(silence)
    logits = network(image)
    handle.remove()
    return logits[0]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("chunk", [1, 5, 99])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_without_each_unit_equal_those_of_the_whole_network(name, chunk, count):
    network, images = build_network(name), IMAGES[:count]
    for layer, expected in layers(name, network).items():
        named = UnitLayer(name=layer)
        is_bottleneck = UnitLayers(network, SHAPE_OF_IMAGE).is_bottleneck(named)
        if expected is not None:
            assert is_bottleneck is expected
        logits, without = without_each(
            network, layer, images, is_bottleneck=is_bottleneck, chunk=chunk
        )
        module = network.get_submodule(layer)
        assert without.shape[1] > 1
        for row in range(count):
            image = images[row : row + 1]
            torch.testing.assert_close(logits[row], literally(network, module, image, -1))
            for channel, found in enumerate(without[row]):
                torch.testing.assert_close(found, literally(network, module, image, channel))
        assert not module._forward_hooks


def test_the_layers_before_the_units_run_on_one_image():
    network, seen = build_network("convnet"), []
    network.features[0].register_forward_hook(lambda _m, _i, out: seen.append(len(out)))
    network.classifier.register_forward_hook(lambda _m, _i, out: seen.append(len(out)))
    without_each(network, "features", IMAGES, is_bottleneck=True, chunk=8)
    # The images, the test of the bottleneck, and 12 pairs of an image and a channel.
    assert seen == [3, 3, 1, 3, 1, 8, 1, 4]


def test_contributions_equal_those_of_captum():
    network = build_network("resnet")
    for layer in ("blocks", "blocks.0.residual.0"):
        logits, without = without_each(network, layer, IMAGES, is_bottleneck=False, chunk=9)
        module, (channels, *size) = network.get_submodule(layer), _shape(network, layer)
        mask = torch.arange(channels)[:, None, None].expand(1, channels, *size)
        for label in range(5):
            attributions = LayerFeatureAblation(network, module).attribute(
                IMAGES, target=label, layer_mask=mask
            )
            contributions = logits[:, None, label] - without[:, :, label]
            torch.testing.assert_close(contributions, attributions[:, :, 0, 0])


def _shape(network, layer):
    units, _ = LaterLayers(network, UnitLayer(name=layer), is_bottleneck=False).read(IMAGES)
    return units.shape[1:]


def test_units_that_no_pass_reaches_are_refused():
    network = build_network("again")
    network.extra = nn.Conv2d(4, 4, 1)
    with pytest.raises(ValueError, match="does not run its layer 'extra'"):
        without_each(network, "extra", IMAGES, is_bottleneck=False, chunk=2)
