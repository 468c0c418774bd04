import pytest
import torch
from torch import nn
from torchvision import models

from cwx.networks import published, published_vgg, resnet, wide_resnet
from cwx.networks.torchvision_variants import torchvision_network

IMAGES = torch.linspace(-2, 2, 2 * 3 * 32 * 32).sin().view(2, 3, 32, 32)


def randomise(network):
    """Every tensor different, so that two networks agree only if they compute the same."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 - 0.1)
            if name.endswith("running_var"):
                tensor += 1
    return network.eval()


def same_function(first, second):
    """Whether two networks with the same tensors in the same order compute the same."""
    randomise(first)
    weights = list(first.state_dict().values())
    names = list(second.state_dict())
    assert len(names) == len(weights)
    second.load_state_dict(dict(zip(names, weights, strict=True)))
    with torch.no_grad():
        return torch.allclose(first(IMAGES), second.eval()(IMAGES), atol=1e-5)


@pytest.mark.parametrize(("stages", "bottleneck"), [([2, 2, 2, 2], False), ([1, 2, 1, 1], True)])
@pytest.mark.parametrize("pooling", [False, True])
def test_a_resnet_computes_what_torchvisions_computes(stages, bottleneck, pooling):
    block = models.resnet.Bottleneck if bottleneck else models.resnet.BasicBlock
    theirs = models.ResNet(block, stages, num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    if not pooling:
        theirs.maxpool = nn.Identity()
    ours = published.ResNet(
        in_channels=3, num_classes=10, stages=stages, bottleneck=bottleneck,
        shortcut="downsample", head="fc", max_pooling=pooling,
    )  # fmt: skip
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert same_function(theirs, ours)


def test_a_shortcut_by_padding_skips_positions_and_adds_channels_of_zeros():
    block = published.Block(4, 8, 2, bottleneck=False, shortcut="padding")
    for tensor in block.parameters():
        nn.init.zeros_(tensor)
    features = torch.rand(1, 4, 6, 6)
    outputs = block.eval()(features)
    assert torch.equal(outputs[:, 2:6], features[:, :, ::2, ::2])
    assert not outputs[:, :2].any()
    assert not outputs[:, 6:].any()


def test_a_wide_resnet_computes_what_the_one_of_the_configuration_computes():
    ours = published.WideResNet(in_channels=3, num_classes=10, depth=16, widening=2)
    own = wide_resnet.WideResNet(
        in_channels=3, image_size=(32, 32), num_classes=10, depth=16, widening=2,
        norm=nn.BatchNorm2d,
    )  # fmt: skip
    # The same tensors in another order: by block norm, convolution, norm, convolution, shortcut.
    assert same_function(own, ours)


def test_an_unused_stage_changes_no_output():
    names = {"in_channels": 3, "num_classes": 10, "depth": 10, "widening": 1}
    plain = randomise(published.WideResNet(**names))
    unused = randomise(published.WideResNet(**names, unused_stage=True))
    extra = unused.state_dict().keys() - plain.state_dict().keys()
    assert {name.split(".")[0] for name in extra} == {"sub_block1"}
    unused.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(plain(IMAGES), unused(IMAGES))


@pytest.mark.parametrize("final_norm", [False, True])
def test_a_preactivation_block_normalises_before_its_convolutions_and_its_shortcut(final_norm):
    network = randomise(
        published.PreActResNet(
            in_channels=3, num_classes=5, stages=[1, 1], width=4, final_norm=final_norm
        )
    )
    features = network.conv1(IMAGES)
    for block in (network.layer1[0], network.layer2[0]):
        active = block.bn1(features).relu()
        residual = block.conv2(block.bn2(block.conv1(active)).relu())
        features = residual + (block.shortcut(active) if block.shortcut else features)
    if final_norm:
        features = network.bn(features).relu()
    assert torch.allclose(network(IMAGES), network.linear(features.mean((2, 3))), atol=1e-6)


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_a_vgg_computes_what_torchvisions_computes(name):
    theirs = getattr(models, name)(num_classes=10, init_weights=False)
    theirs.classifier = nn.Sequential(
        *(nn.Dropout(), nn.Linear(512 * 4, 16), nn.ReLU(), nn.Linear(16, 10))
    )
    theirs.avgpool = nn.AdaptiveAvgPool2d(2)
    ours = published_vgg.VGG(
        in_channels=3, num_classes=10, blocks=[[64], [128], [256] * 2, [512] * 2, [512] * 2],
        batch_norm=name.endswith("bn"), grid=2, hidden=[16], linear=[1, 3],
    )  # fmt: skip
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert same_function(theirs, ours)


@pytest.mark.parametrize(("hidden", "linear"), [([4], None), ([], [0, 2]), ([4], [0, 1])])
def test_a_vgg_refuses_positions_that_do_not_fit(hidden, linear):
    with pytest.raises(ValueError, match="hidden layers"):
        published_vgg.VGG(
            in_channels=3, num_classes=2, blocks=[[4]], batch_norm=False, hidden=hidden,
            linear=linear,
        )  # fmt: skip


def test_changes_of_a_torchvision_network():
    network = torchvision_network(
        name="resnet18", num_classes=7, in_channels=1, stem_size=3, stem_stride=1,
        max_pooling=False, head_position=1, features=True,
    )  # fmt: skip
    names = list(network.state_dict())
    assert names[0] == "features.conv1.weight"
    assert names[-1] == "classifier.fc.1.bias"
    assert network.eval()(IMAGES[:, :1]).shape == (2, 7)
    assert network.features[:4](IMAGES[:, :1]).shape[2:] == (32, 32)


@pytest.mark.parametrize("name", ["resnet19", "os.system", "Weights", "resnet"])
def test_only_torchvisions_image_classifiers_are_built(name):
    with pytest.raises(ValueError, match="torchvision has no image classifier"):
        torchvision_network(name=name, num_classes=2)


def test_a_network_without_max_pooling_cannot_lose_it():
    with pytest.raises(ValueError, match="has no maxpool"):
        torchvision_network(name="squeezenet1_1", num_classes=2, max_pooling=False)


def test_the_resnet_of_the_configuration_computes_the_same():
    own = resnet.ResNet(
        in_channels=3, image_size=(32, 32), num_classes=10, stages=[2, 2, 1], width=8,
        block=resnet.basic_block, norm=nn.BatchNorm2d,
    )  # fmt: skip
    ours = published.ResNet(in_channels=3, num_classes=10, stages=[2, 2, 1], width=8)
    assert same_function(own, ours)
