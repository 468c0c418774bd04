"""Prediction differences equal those of copies of the whole image, for networks of every kind."""

from functools import partial

import pytest
import torch
from support import references
from torch import nn

from cwx.functional.class_similarity import correlation
from cwx.functional.prediction_difference import prediction_differences, probabilities_without
from cwx.networks.convnet import ConvNet
from cwx.networks.densenet import DenseNet
from cwx.networks.resnet import ResNet, basic_block
from cwx.networks.unit_layers import UnitLayer
from cwx.networks.unit_outputs import changed_units

SHAPE = {"in_channels": 3, "image_size": (16, 16), "num_classes": 5}
IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
DISTANCES = torch.tensor([[abs(i - j) for j in range(5)] for i in range(5)]).double()
CORRELATION = correlation(DISTANCES, 1.0)


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


def norm(channels):
    return nn.BatchNorm2d(channels)


NETWORKS = {
    "convnet": (lambda: ConvNet(depth=2, width=4, norm=norm, **SHAPE), ["features", "features.0"]),
    "resnet": (
        lambda: ResNet(stages=[1, 1], block=basic_block, width=4, norm=norm, **SHAPE),
        # The second lies beside a path around it.
        ["blocks", "blocks.0.residual.0"],
    ),
    # Concatenates what comes before.
    "densenet": (lambda: DenseNet(growth=4, blocks=[2, 2], norm=norm, **SHAPE), None),
    "again": (Again, ["relu", "second"]),
}


def build_network(name):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return NETWORKS[name][0]().double().eval().requires_grad_(False)


def layers(name, network):
    names = NETWORKS[name][1]
    return names or [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]


def without_each(network, layer, chunk):
    """The prediction without each channel of the output of a layer."""
    change = partial(changed_units, network, UnitLayer(name=layer))
    return probabilities_without(network, change, IMAGE, chunk=chunk)


def literally(network, layer, image, channel):
    """The network run whole with one channel of the layer's last run set to 0; -1 for none."""
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
    return logits.softmax(1)[0]


@pytest.mark.parametrize("chunk", [1, 3, 99])
@pytest.mark.parametrize("name", NETWORKS)
def test_copies_of_the_layer_output_equal_copies_of_the_image(name, chunk):
    network = build_network(name)
    for layer in layers(name, network):
        whole, without = without_each(network, layer, chunk)
        layer = network.get_submodule(layer)
        torch.testing.assert_close(whole, literally(network, layer, IMAGE, -1))
        assert len(without) > 1
        for channel, found in enumerate(without):
            torch.testing.assert_close(found, literally(network, layer, IMAGE, channel))
        assert not layer._forward_hooks


def test_the_layers_before_the_layer_run_on_one_image():
    network, seen = build_network("convnet"), []
    network.features[0].register_forward_hook(lambda _m, _i, out: seen.append(len(out)))
    network.classifier.register_forward_hook(lambda _m, _i, out: seen.append(len(out)))
    without_each(network, "features", 3)
    assert seen == [1, 1, 1, 3, 1, 1]


def test_differences_equal_the_formula():
    network = build_network("again")
    maps = network.relu(network.second(network.relu(network.first(IMAGE))))[0]
    found = prediction_differences(*without_each(network, "relu", 2), CORRELATION)
    for channel, difference in enumerate(found.tolist()):
        expected = references.prediction_difference(
            lambda m: network.tail(m[None])[0], maps, channel, CORRELATION.tolist()
        )
        assert difference == pytest.approx(expected, rel=1e-9, abs=1e-20)


def test_a_channel_that_nothing_reads_makes_no_difference():
    network = build_network("again")
    found = prediction_differences(*without_each(network, "relu", 4), CORRELATION)
    assert found[2].item() == pytest.approx(0, abs=1e-24)
    assert (found >= 0).all()
    assert found.max() > 1e-8


def test_units_that_no_pass_reaches_are_refused():
    network = build_network("again")
    network.extra = nn.Conv2d(4, 4, 1)
    with pytest.raises(ValueError, match="does not run the layer of these channels"):
        without_each(network, "extra", 2)


def test_close_classes_count_for_less():
    """What moves from one class to another matters less, the closer they are."""
    whole, without = torch.tensor([1.0, 0, 0, 0, 0]), torch.eye(5)
    found = prediction_differences(whole.double(), without.double(), CORRELATION)
    assert found[0] == 0
    assert found.tolist() == sorted(found.tolist())
