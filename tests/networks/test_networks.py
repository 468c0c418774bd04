from functools import partial

import pytest
import torch
import torchvision
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from support.paths import CONF
from torch import nn
from torch.nn import functional as F

from cwx.networks.convnet import ConvNet, instance_norm
from cwx.networks.eval_mode import accuracy, eval_mode
from cwx.networks.external import external

NETWORK_CONFIGS = CONF / "network"


def configured(name, size=(32, 32), channels=3, **settings):
    """The network of ``conf/network/{name}.yaml``, for ten classes."""
    factory = instantiate(OmegaConf.load(NETWORK_CONFIGS / f"{name}.yaml"), _convert_="all")
    return factory(in_channels=channels, image_size=size, num_classes=10, **settings)


def convnet(size=(32, 32), **overrides):
    settings = {"depth": 3, "width": 128, "norm": instance_norm, **overrides}
    return ConvNet(in_channels=3, image_size=size, num_classes=10, **settings)


def test_the_convnet_of_the_paper_has_320010_parameters():
    # 3 -> 128 -> 128 -> 128 by 3x3, three affine norms, 2048 -> 10.
    assert sum(p.numel() for p in convnet().parameters()) == 320_010


def test_the_convnet_for_64_pixels_has_four_blocks():
    with initialize_config_dir(str(CONF), version_base=None):
        factory = instantiate(compose(overrides=["+network=convnet4"]).network)
    network = factory(in_channels=3, image_size=(64, 64), num_classes=200)
    # A fourth convolution and norm; the last maps are 4x4, as for 32 pixels and three blocks.
    per_block = 128 * 128 * 9 + 128 + 2 * 128
    expected = 320_010 + per_block + 190 * (2048 + 1)
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 200)


def test_the_convnet_starts_from_torch_or_from_he():
    """He et al. 2015: normal of std √(2/n), no bias; torch: uniform of std 1/√(3n)."""
    for initialisation, factor in (("torch", 1 / 3), ("he", 2)):
        torch.manual_seed(0)
        network = convnet(initialisation=initialisation)
        for layer in (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
            inputs = layer.weight[0].numel()
            std = (factor / inputs) ** 0.5
            assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
            assert layer.weight.mean().item() == pytest.approx(0, abs=0.1 * std)
            # A uniform distribution ends at √3 of its std.
            assert (layer.weight.abs().max() > 2 * std) == (initialisation == "he")
            assert bool(layer.bias.any()) == (initialisation == "torch")


def test_the_default_initialisation_is_the_one_of_torch():
    torch.manual_seed(0)
    default = convnet()
    torch.manual_seed(0)
    first = nn.Conv2d(3, 128, 3, padding=1)
    assert torch.equal(default.features[0].weight, first.weight)
    assert torch.equal(default.features[0].bias, first.bias)


def test_the_initialisation_is_a_setting():
    """A setting that the file leaves to its default: stored experts keep their identity."""
    with initialize_config_dir(str(CONF), version_base=None):
        he = instantiate(
            compose(overrides=["+network=convnet", "+network.initialisation=he"]).network
        )
        default = compose(overrides=["+network=convnet"]).network
    assert "initialisation" not in default
    network = he(in_channels=3, image_size=(32, 32), num_classes=10)
    assert not network.classifier.bias.any()


def test_a_convnet_too_deep_for_its_images_is_refused():
    with pytest.raises(ValueError, match="use a depth of at most 3"):
        convnet(size=(8, 9), depth=4)


@pytest.mark.parametrize("norm", [instance_norm, nn.BatchNorm2d, None])
def test_every_size_gives_logits(norm):
    for size in ((8, 8), (28, 28), (9, 17)):
        logits = convnet(size=size, norm=norm)(torch.zeros(2, 3, *size))
        assert logits.shape == (2, 10)


# AlexNet's layers: output channels, input channels, side of the filters.
ALEXNET = [(128, 3, 5), (192, 128, 5), (256, 192, 3), (192, 256, 3), (192, 192, 3), (10, 192, 4)]

# VGG, ResNet and DenseNet for CIFAR-10: numbers of https://github.com/kuangliu/pytorch-cifar;
# WideResNet: https://github.com/osmr/imgclsmob (its paper says 36.5 million).
PARAMETERS = {
    "alexnet": sum(out * (into * side**2 + 1) for out, into, side in ALEXNET),
    "vgg11": 9_231_114,
    "vgg16": 14_728_266,
    "resnet18": 11_173_962,
    "resnet50": 23_520_842,
    "wide_resnet28_10": 36_479_194,
    "densenet121": 6_956_298,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_configured_network_has_as_many_parameters_as_published(name):
    with torch.device("meta"):
        network = configured(name)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


# Network, image side, image channels, shape of the last feature map [channels, height, width].
FEATURE_SHAPES = [
    ("alexnet", 32, 3, [192, 4, 4]),
    ("alexnet", 64, 3, [192, 8, 8]),
    ("alexnet", 28, 1, [192, 3, 3]),
    ("vgg11", 32, 1, [512, 1, 1]),
    ("vgg11", 64, 3, [512, 2, 2]),
    ("vgg16", 32, 3, [512, 1, 1]),
    ("vgg16", 64, 3, [512, 2, 2]),
    ("resnet18", 32, 3, [512, 4, 4]),
    ("resnet18", 64, 3, [512, 8, 8]),
    ("resnet18", 28, 1, [512, 4, 4]),
    ("resnet50", 32, 3, [2048, 4, 4]),
    ("resnet50", 64, 3, [2048, 8, 8]),
    ("resnet50", 28, 1, [2048, 4, 4]),
    ("wide_resnet28_10", 32, 3, [640, 8, 8]),
    ("wide_resnet28_10", 64, 3, [640, 16, 16]),
    ("wide_resnet28_10", 27, 1, [640, 7, 7]),
    ("densenet121", 32, 3, [1024, 4, 4]),
    ("densenet121", 64, 3, [1024, 8, 8]),
    ("densenet121", 28, 1, [1024, 3, 3]),
]


@pytest.mark.parametrize(("name", "side", "channels", "feature_shape"), FEATURE_SHAPES)
def test_the_last_feature_map_has_the_expected_shape(name, side, channels, feature_shape):
    with torch.device("meta"):
        network = configured(name, (side, side), channels)
        images = torch.empty(2, channels, side, side)
    *convolutions, classifier = network.children()
    assert nn.Sequential(*convolutions)(images).shape == (2, *feature_shape)
    assert isinstance(classifier, nn.Linear)
    assert network(images).shape == (2, 10)


TOO_SMALL = [
    ("alexnet", (7, 9), "7x9 images three times, to less .*: use images of at least 8x8"),
    ("vgg11", (28, 28), "a VGG of 5 blocks halves 28x28 .* a pixel: use at most 4 blocks"),
    ("vgg16", (64, 31), "a VGG of 5 blocks halves 64x31 .* a pixel: use at most 4 blocks"),
    ("resnet18", (7, 8), "halves 7x8 images to less than a pixel: use at most 3 stages"),
    ("resnet50", (8, 2), "halves 8x2 images to less than a pixel: use at most 2 stages"),
    ("wide_resnet28_10", (3, 8), "halves 3x8 images twice, .*: use images of at least 4x4"),
    ("densenet121", (7, 8), "a DenseNet of 4 blocks halves 7x8 .* a pixel: use at most 3 blocks"),
]


@pytest.mark.parametrize(("name", "size", "message"), TOO_SMALL)
def test_images_that_are_too_small_for_the_poolings_are_refused(name, size, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        configured(name, size)


@pytest.mark.parametrize(
    ("name", "size", "settings"),
    [
        ("alexnet", (8, 8), {}),
        ("vgg11", (28, 28), {"blocks": [[8], [8], [8], [8, 8]]}),
        ("resnet18", (8, 8), {}),
        ("resnet50", (2, 2), {"stages": [1, 1]}),
        ("wide_resnet28_10", (4, 4), {}),
        ("wide_resnet28_10", (8, 8), {"depth": 10}),
        ("densenet121", (7, 8), {"blocks": [2, 2, 2]}),
    ],
)
def test_the_remedy_of_each_error_message_works(name, size, settings):
    with torch.device("meta"):
        network = configured(name, size, **settings)
        assert network(torch.empty(2, 3, *size)).shape == (2, 10)


@pytest.mark.parametrize("depth", [4, 27, -2])
def test_a_wide_resnet_of_an_impossible_depth_is_refused(depth):
    with pytest.raises(ValueError, match=rf"blocks per stage, not {depth}: use 10, 16, 22"):
        configured("wide_resnet28_10", depth=depth)


SMALL = [
    ("alexnet", {"width": 8}),
    ("vgg11", {}),
    ("vgg16", {"norm": instance_norm, "blocks": [[4, 4], [8, 8], [16, 16]]}),
    ("vgg16", {"norm": None, "blocks": [[4, 4], [8, 8], [16, 16]]}),
    ("resnet18", {"width": 8}),
    ("resnet18", {"width": 8, "norm": instance_norm}),
    ("resnet50", {"width": 8}),
    ("wide_resnet28_10", {"depth": 16, "widening": 1}),
    ("wide_resnet28_10", {"depth": 10, "widening": 2, "norm": instance_norm}),
    ("densenet121", {"blocks": [2, 3, 2], "growth": 4}),
    ("densenet121", {"blocks": [2, 2], "growth": 4, "norm": instance_norm}),
]


@pytest.mark.parametrize(("name", "settings"), SMALL)
def test_random_images_give_finite_logits_and_every_weight_a_gradient(name, settings):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator).requires_grad_()
    torch.manual_seed(0)
    network = configured(name, **settings)
    logits = network(images)
    assert logits.isfinite().all()
    loss = F.cross_entropy(logits, torch.arange(4))
    for gradient in torch.autograd.grad(loss, [images, *network.parameters()]):
        assert gradient.isfinite().all()
        # A bias before a normalisation has gradient 0.
        assert gradient.ndim == 1 or gradient.count_nonzero() > 0


def torchvision_resnet(block, layers):
    network = torchvision.models.ResNet(block, layers, num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def torchvision_vgg(letter):
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs[letter], True)
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(layers, pool, nn.Flatten(), nn.Linear(512, 10))


def torchvision_densenet():
    network = torchvision.models.densenet121(num_classes=10)
    network.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(network.features, name, nn.Identity())
    return network


TORCHVISION = {
    "vgg11": lambda: torchvision_vgg("A"),
    "vgg16": lambda: torchvision_vgg("D"),
    "resnet18": lambda: torchvision_resnet(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2]),
    "resnet50": lambda: torchvision_resnet(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3]),
    "densenet121": torchvision_densenet,
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_logits_equal_those_of_torchvision_with_the_same_weights(name):
    torch.manual_seed(0)
    size = (40, 35)
    network, reference = configured(name, size), TORCHVISION[name]()
    states = zip(reference.state_dict(), network.state_dict().values(), strict=True)
    reference.load_state_dict({key: value.clone() for key, value in states})
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images), reference(images))


def wide_resnet_reference(network, images, depth, widening):
    """Zagoruyko and Komodakis, §2, in training mode; weights in the order of their use."""
    weights = iter(network.parameters())

    def norm_relu(x):
        return F.relu(F.batch_norm(x, None, None, next(weights), next(weights), training=True))

    def block(x, out, stride):
        a = norm_relu(x)
        r = F.conv2d(a, next(weights), stride=stride, padding=1)
        r = F.conv2d(norm_relu(r), next(weights), padding=1)
        return r + (x if x.shape == r.shape else F.conv2d(a, next(weights), stride=stride))

    x = F.conv2d(images, next(weights), padding=1)
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        for i in range((depth - 4) // 6):
            x = block(x, filters * widening, stride if i == 0 else 1)
    x = F.avg_pool2d(norm_relu(x), x.shape[-2:]).flatten(1)
    logits = F.linear(x, next(weights), next(weights))
    assert next(weights, None) is None
    return logits


@pytest.mark.parametrize("settings", [{"depth": 16, "widening": 2}, {"depth": 10, "widening": 1}])
def test_a_wide_resnet_equals_the_reference_of_the_paper(settings):
    torch.manual_seed(0)
    network = configured("wide_resnet28_10", **settings).double()
    images = torch.randn(3, 3, 16, 13, dtype=torch.float64)
    expected = wide_resnet_reference(network, images, **settings)
    torch.testing.assert_close(network(images), expected)


def test_an_external_network_gets_only_its_own_arguments():
    build = instantiate(
        {
            "_target_": "cwx.networks.external.external",
            **{"output": None, "probabilities": False, "reverse_channels": False},
            "_partial_": True,
            "build": {
                "_target_": "torchvision.models.squeezenet1_0",
                "_partial_": True,
                "num_classes": 7,
            },
        }
    )
    network = build(in_channels=1, image_size=(8, 8), num_classes=3)
    assert isinstance(network, torchvision.models.SqueezeNet)
    assert network.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "weights_name"),
    [
        ("alexnet", "AlexNet_Weights.IMAGENET1K_V1"),
        ("resnet18", "ResNet18_Weights.IMAGENET1K_V1"),
        ("resnet50", "ResNet50_Weights.IMAGENET1K_V1"),
        ("vgg16", "VGG16_Weights.IMAGENET1K_V1"),
    ],
)
def test_imagenet_networks_have_as_many_parameters_as_torchvision_weights(name, weights_name):
    with torch.device("meta"), initialize_config_dir(str(CONF), version_base=None):
        factory = instantiate(compose(overrides=[f"+network=imagenet_{name}"]).network)
        network = factory(in_channels=3, image_size=(224, 224), num_classes=1000)
        assert network(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert weights_name in (NETWORK_CONFIGS / f"imagenet_{name}.yaml").read_text()
    weights = torchvision.models.get_weight(weights_name)
    assert sum(p.numel() for p in network.parameters()) == weights.meta["num_params"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(nn.Linear, 2), "Linear rejects its arguments .*out_features.*: correct them"),
        (partial(nn.Linear, 2, 2, size=3), "unexpected keyword argument 'size'.*network.build"),
        (dict, "dict returns a dict, not a torch.nn.Module: set network.build._target_"),
    ],
)
def test_an_external_builder_that_returns_no_network_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        external(
            build=build, output=None, probabilities=False, reverse_channels=False,
            in_channels=1, image_size=(8, 8), num_classes=3,
        )  # fmt: skip


def test_modes_are_restored_also_after_an_exception():
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))
    network[0].eval()
    with eval_mode(network):
        assert not any(m.training for m in network.modules())
    with pytest.raises(KeyError), eval_mode(network):
        raise KeyError
    assert [m.training for m in network.modules()] == [True, False, True]


def test_accuracy_is_a_mean_over_images_not_batches():
    batches = [(torch.eye(2), torch.tensor([0, 1]), 2), (torch.eye(2)[:1], torch.tensor([1]), 1)]
    assert accuracy(nn.Identity(), batches) == pytest.approx(2 / 3)
