"""Layer names of a network, and the outputs of several layers in one pass."""

import pytest
import torch
from support.builders import small_mlp
from support.vision_networks import IMAGES as EXAMPLES
from support.vision_networks import SHAPE as EXAMPLE
from support.vision_networks import build_network
from torch import nn

from cwx.networks.alexnet import AlexNet
from cwx.networks.densenet import DenseNet
from cwx.networks.layers import convolutional_layers, feature_layer, spatial_layers
from cwx.networks.mlp import MLP
from cwx.networks.resnet import ResNet, basic_block
from cwx.networks.unit_layers import UnitLayer
from cwx.networks.unit_outputs import unit_outputs

SHAPE = {"in_channels": 3, "image_size": (32, 32), "num_classes": 5}
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Odd(nn.Module):
    """Convolutions before a norm, before themselves, before a ReLU and before a sum; one unused."""

    class Frozen(nn.Module):
        def forward(self, maps):
            return 1 - maps

    class FrozenNorm(Frozen):
        """A norm class of another library."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Conv2d(3, 3, 1)
        self.turned, self.norm = nn.Conv2d(3, 3, 1), self.FrozenNorm()
        self.again = nn.Conv2d(3, 3, 1)
        self.rectified, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)
        self.late = nn.BatchNorm2d(3)
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
        self.head = nn.Linear(3, 5)

    def forward(self, images):
        maps = self.norm(self.turned(self.again(images)))
        maps = self.late(self.relu(self.rectified(self.again(maps))))
        # The norm of a sum belongs to no convolution.
        maps = self.norm(maps + self.weighted(maps))
        return self.head(maps.mean((2, 3)))


def test_a_convolution_is_read_after_the_norm_that_takes_its_output():
    network = Odd()
    # The norm runs twice, the second time on a sum; its name appears once.
    assert convolutional_layers(network, (3, 32, 32)) == ["norm", "again", "rectified", "weighted"]
    assert network.training


def test_convolutional_layers_of_known_networks():
    resnet = ResNet(stages=[1, 1], block=basic_block, width=4, norm=nn.BatchNorm2d, **SHAPE)
    assert convolutional_layers(resnet, (3, 32, 32)) == [
        "stem.1",
        *(f"blocks.0.residual.{index}" for index in (1, 4)),
        *(f"blocks.1.residual.{index}" for index in (1, 4)),
        "blocks.1.shortcut.1",
    ]
    alexnet = AlexNet(width=4, **SHAPE)
    assert [type(alexnet.get_submodule(n)) for n in convolutional_layers(alexnet, (3, 32, 32))] == [
        nn.Conv2d
    ] * 5
    densenet = DenseNet(growth=4, blocks=[2, 2], norm=nn.BatchNorm2d, **SHAPE)
    convolutions = [m for m in densenet.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutional_layers(densenet, (3, 32, 32))) == len(convolutions)
    assert convolutional_layers(MLP(depth=1, width=4, **SHAPE), (3, 32, 32)) == []


def at_output(names):
    """Layers whose units are read at their output."""
    return [UnitLayer(name=name) for name in names]


def test_one_pass_gives_the_last_output_of_each_layer():
    # Weights for which the ReLU has inputs below 0.
    torch.manual_seed(1)
    network = Odd().eval()
    maps = network.norm(network.turned(network.again(IMAGES)))
    second = network.again(maps)
    with unit_outputs(network, at_output(["turned", "again", "rectified", ""])) as outputs:
        by_name = outputs(IMAGES)
    assert set(by_name) == {"turned", "again", "rectified", ""}
    torch.testing.assert_close(by_name["turned"], network.turned(network.again(IMAGES)))
    # The output of the last call, before the in-place ReLU.
    torch.testing.assert_close(by_name["again"], second)
    torch.testing.assert_close(by_name["rectified"], network.rectified(second))
    assert by_name["rectified"].min() < 0
    torch.testing.assert_close(by_name[""], network(IMAGES))


def test_outputs_are_differentiable_and_read_may_reduce_them():
    network, images = Odd(), IMAGES.clone().requires_grad_()
    with unit_outputs(network, at_output(["rectified"])) as outputs:
        (gradient,) = torch.autograd.grad(outputs(images)["rectified"].sum(), images)
    assert gradient.abs().sum() > 0
    with unit_outputs(network, at_output(["rectified"]), lambda maps: maps.amax((2, 3))) as outputs:
        assert outputs(IMAGES)["rectified"].shape == (4, 3)


def hooks(network):
    return [hook for module in network.modules() for hook in module._forward_hooks]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("norn", "Odd has no layer 'norn': the nearest are norm"),
        ("unused", "does not run its layer 'unused', whose output is needed: name another"),
    ],
)
def test_a_layer_without_output_is_refused_and_hooks_are_removed(name, message):
    network = Odd()
    with (
        pytest.raises(ValueError, match=message),
        unit_outputs(network, at_output(["again", name])) as outputs,
    ):
        outputs(IMAGES)
    assert not hooks(network)


def test_hooks_are_removed_after_a_failure():
    network = Odd()
    with pytest.raises(RuntimeError), unit_outputs(network, at_output(["again"])) as outputs:
        outputs(IMAGES[:, :2])
    assert not hooks(network)
    with pytest.raises(RuntimeError):
        convolutional_layers(network, (2, 32, 32))
    assert not hooks(network)
    assert network.training


SETTING = "recipe.layer"


def test_spatial_layers_leave_the_network_unchanged():
    network = build_network("convnet").train()
    network.features[1].eval()
    modes = [module.training for module in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    names = spatial_layers(network, EXAMPLES.shape[1:])
    assert names[-2:] == ["features.7", "features"]
    assert [module.training for module in network.modules()] == modes
    assert all(not module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[n], tensor) for n, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [(None, "features"), ("features.3", "features.3"), ("classifier", "classifier")],
)
def test_the_feature_layer_is_any_named_one_or_the_last_spatial_one(name, expected):
    network = build_network("convnet")
    assert feature_layer(network, EXAMPLES.shape[1:], name, SETTING) == expected


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        ("convnet", "feature", "is 'feature', which is no layer of ConvNet .* such as features,"),
        ("convnet", "", "is '', which is no layer of ConvNet"),
        ("external", "unused", "is 'unused', which is no layer of ExternalNetwork"),
        ("external", "pair", "is 'pair', .* that gives one row per image"),
    ],
)
def test_an_unknown_layer_is_refused_with_suggestions(network, name, message):
    with pytest.raises(ValueError, match=f"{SETTING} {message}"):
        feature_layer(build_network(network), EXAMPLES.shape[1:], name, SETTING)


def test_a_network_without_spatial_layers_needs_a_layer_name():
    network = small_mlp(**EXAMPLE)
    with pytest.raises(ValueError, match="no layer of MLP gives maps"):
        feature_layer(network, EXAMPLES.shape[1:], None, SETTING)
    modules = network.named_modules()
    name = next(name for name, module in modules if isinstance(module, nn.Linear))
    assert feature_layer(network, EXAMPLES.shape[1:], name, SETTING) == name
