import time
from functools import partial

import pytest
import torch
from torch import nn
from torchvision import models

from cwx.networks import (
    alexnet,
    convnet,
    densenet,
    mlp,
    published,
    published_vgg,
    resnet,
    vgg,
    wide_resnet,
)
from cwx.networks.torchvision_variants import builder_names, torchvision_network
from cwx.training.importing.architecture import nearest, recognise

DATA = {"in_channels": 3, "num_classes": 10}
OWN = {**DATA, "image_size": (32, 32)}
BATCH_NORM = {"norm": nn.BatchNorm2d}
SMALL_STEM = {"stem_size": 3, "stem_stride": 1, "max_pooling": False}
VGG16 = [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3]
RESNET, PREACT, WIDE = published.ResNet, published.PreActResNet, published.WideResNet

NETWORKS = {
    "resnet18": partial(RESNET, **DATA, stages=[2, 2, 2, 2]),
    "resnet50": partial(RESNET, **DATA, stages=[3, 4, 6, 3], bottleneck=True),
    "resnet20 by padding": partial(
        RESNET, **DATA, stages=[3, 3, 3], width=16, shortcut="padding"
    ),
    "resnet20 by downsample": partial(
        RESNET, **DATA, stages=[3, 3, 3], width=16, shortcut="downsample", head="fc"
    ),
    "resnet18 for 64 pixels": partial(RESNET, **DATA, stages=[2, 2, 2, 2], width=8, grid=2),
    "resnet of width 8": partial(RESNET, **DATA, stages=[1, 2, 1], width=8),
    "preact18": partial(PREACT, **DATA, stages=[2, 2, 2, 2]),
    "preact34 with norm": partial(PREACT, **DATA, stages=[3, 4, 6, 3], final_norm=True),
    "preact50": partial(PREACT, **DATA, stages=[3, 4, 6, 3], bottleneck=True),
    "preact of grey images": partial(
        PREACT, in_channels=1, num_classes=43, stages=[1, 1, 1, 1], width=4
    ),
    "wide28-10": partial(WIDE, **DATA, depth=28, widening=10),
    "wide34-10 of trades": partial(WIDE, **DATA, depth=34, widening=10, unused_stage=True),
    "vgg16 with batch norm": partial(published_vgg.VGG, **DATA, blocks=VGG16, batch_norm=True),
    "vgg16 with dropout": partial(
        published_vgg.VGG, **DATA, blocks=VGG16, batch_norm=False, hidden=[512, 512],
        linear=[1, 4, 6],
    ),
    "vgg16 for 64 pixels": partial(
        published_vgg.VGG, **DATA, blocks=VGG16, batch_norm=True, grid=2
    ),
    "own resnet": partial(
        resnet.ResNet, **OWN, stages=[2, 1, 3], block=resnet.basic_block, width=4, **BATCH_NORM
    ),
    "own bottleneck resnet": partial(
        resnet.ResNet, **OWN, stages=[1, 1], block=resnet.bottleneck, width=4,
        norm=convnet.instance_norm,
    ),
    "own wide resnet": partial(
        wide_resnet.WideResNet, **OWN, depth=16, widening=1, **BATCH_NORM
    ),
    "own vgg": partial(vgg.VGG, **OWN, blocks=[[4], [8, 12], [8]], **BATCH_NORM),
    "own vgg without norm": partial(vgg.VGG, **OWN, blocks=[[4, 4], [8]], norm=None),
    "convnet": partial(convnet.ConvNet, **OWN, depth=3, width=8, norm=convnet.instance_norm),
    "convnet without norm": partial(convnet.ConvNet, **OWN, depth=2, width=8, norm=None),
    "alexnet": partial(alexnet.AlexNet, **OWN, width=8),
    "densenet": partial(densenet.DenseNet, **OWN, blocks=[2, 3, 1], growth=4, **BATCH_NORM),
    "mlp": partial(mlp.MLP, **OWN, depth=2, width=16),
    "mlp without hidden layers but one": partial(mlp.MLP, **OWN, depth=1, width=16),
    "torchvision resnet18": partial(models.resnet18, num_classes=10),
    "torchvision squeezenet": partial(models.squeezenet1_0, num_classes=6),
    "torchvision vgg19_bn": partial(models.vgg19_bn, num_classes=10),
    "torchvision mobilenet": partial(models.mobilenet_v3_small, num_classes=10),
    "torchvision efficientnet": partial(models.efficientnet_b0, num_classes=10),
    "torchvision swin": partial(models.swin_t, num_classes=10),
    "torchvision vit for 384 pixels": partial(models.vit_b_32, image_size=384, num_classes=10),
    "torchvision regnet": partial(models.regnet_y_400mf, num_classes=10),
    "torchvision googlenet": partial(
        models.googlenet, num_classes=10, init_weights=False, aux_logits=False
    ),
    "cifar stem": partial(torchvision_network, name="resnet18", num_classes=10, **SMALL_STEM),
    "grey resnext": partial(
        torchvision_network, name="resnext50_32x4d", num_classes=10, in_channels=1, **SMALL_STEM
    ),
    "head in a sequential": partial(
        torchvision_network, name="resnet18", num_classes=10, head_position=1
    ),
    "trojanzoo": partial(
        torchvision_network, name="resnet18", num_classes=10, features=True, **SMALL_STEM
    ),
    "grey mobilenet": partial(
        torchvision_network, name="mobilenet_v2", num_classes=10, in_channels=1
    ),
}  # fmt: skip
FAST = ["preact of grey images", "own vgg", "mlp", "convnet", "trojanzoo"]


def state_of(build):
    """The state_dict, without memory where that is possible."""
    try:
        with torch.device("meta"):
            return build().state_dict()
    except NotImplementedError:
        return build().state_dict()


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def rebuilt(architecture):
    side = architecture.image_size or architecture.likely_size
    return architecture.factory(
        in_channels=architecture.channels,
        image_size=(side, side),
        num_classes=architecture.classes,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_recognised_by_its_tensors(name):
    state = state_of(NETWORKS[name])
    # The order of tensors in a file has no meaning.
    architectures = recognise(dict(sorted(state.items())), {})
    assert architectures
    for architecture in architectures[:2]:
        assert shapes(state_of(partial(rebuilt, architecture))) == shapes(state)
        assert f"{architecture.classes} class" in architecture.description


@pytest.mark.parametrize("name", ["resnet20 by padding", "preact of grey images", "own vgg",
                                  "convnet", "alexnet", "densenet", "mlp", "own wide resnet",
                                  "resnet of width 8", "own resnet", "vgg16 with dropout",
                                  "cifar stem", "trojanzoo"])  # fmt: skip
def test_the_first_architecture_computes_what_the_network_computes(name):
    network = NETWORKS[name]().eval()
    state = network.state_dict()
    first = recognise(state, {})[0]
    copy = rebuilt(first).eval()
    copy.load_state_dict(state)
    images = torch.rand(2, first.channels, 32, 32)
    assert torch.equal(network(images), copy(images))


@pytest.mark.parametrize("name", builder_names())
def test_torchvisions_classifiers_have_names_that_a_family_knows(name):
    from cwx.training.importing import candidates_torchvision as candidates

    module = models.get_model_builder(name).__module__.rpartition(".")[2]
    assert module in candidates._NAMES
    assert module in candidates._HEADS


@pytest.mark.parametrize("prefix", ["module.", "model.", "a.b.net.", "1.", "_orig_mod.module."])
@pytest.mark.parametrize("name", FAST)
def test_a_common_prefix_is_left_out(name, prefix):
    state = state_of(NETWORKS[name])
    plain = recognise(state, {})
    prefixed = recognise({f"{prefix}{n}": t for n, t in state.items()}, {})
    assert [a.description for a in prefixed] == [a.description for a in plain]
    assert prefixed[0].prefix == prefix
    assert plain[0].beside == ()


BESIDE = {
    "criterion": {"criterion.weight": torch.ones(7)},
    "counters of a profiler": {"total_ops": torch.ones(1), "layer1.total_params": torch.ones(1)},
    "averages": {"n_averaged": torch.ones(())},
    "normalisation": {"normalize.mean": torch.ones(3), "normalize.std": torch.ones(3)},
    "statistics": {"mu": torch.ones(1, 3, 1, 1), "sigma": torch.ones(1, 3, 1, 1)},
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("name", FAST)
def test_tensors_beside_a_network_are_named(name, prefix, beside):
    state = state_of(NETWORKS[name])
    file = {**{f"{prefix}{n}": t for n, t in state.items()}, **BESIDE[beside]}
    architectures = recognise(file, {})
    assert architectures
    assert set(architectures[0].beside) == set(BESIDE[beside])


@pytest.mark.parametrize("copy", ["ema.", "ema.module.", "teacher.", "other.net."])
@pytest.mark.parametrize("prefix", ["", "net."])
def test_a_copy_of_the_network_is_beside_it(prefix, copy):
    state = state_of(NETWORKS["preact of grey images"])
    file = {p + n: t for p in (prefix, copy) for n, t in state.items()}
    architecture = recognise(file, {})[0]
    assert {prefix, copy} >= {architecture.prefix}
    assert len(architecture.beside) == len(state)


def test_a_layer_after_the_network_is_not_ignored():
    state = state_of(NETWORKS["preact of grey images"])
    file = {f"backbone.{n}": t for n, t in state.items()} | {"head.weight": torch.ones(4, 43)}
    assert recognise(file, {}) == []
    assert "1 others beside it" in nearest(file)


@pytest.mark.parametrize("name", ["preact of grey images", "own resnet", "cifar stem"])
def test_counters_of_batch_norm_may_be_missing(name):
    state = state_of(NETWORKS[name])
    older = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    assert len(older) < len(state)
    assert recognise(older, {}) == recognise(state, {})


def test_other_tensors_are_no_known_network_and_the_nearest_says_why():
    state = state_of(NETWORKS["resnet18"])
    missing = {n: t for n, t in state.items() if n != "layer3.0.bn1.weight"}
    assert recognise(missing, {}) == []
    assert "ResNet-18" in nearest(missing)
    assert "layer3.0.bn1.weight missing" in nearest(missing)
    changed = {**state, "layer2.0.conv1.weight": torch.empty(128, 65, 3, 3, device="meta")}
    assert recognise(changed, {}) == []
    assert "layer2.0.conv1.weight is [128, 65, 3, 3] for [128, 64, 3, 3]" in nearest(changed)
    extra = {**state, "attention.weight": torch.ones(2)}
    assert recognise(extra, {}) == []
    assert "attention.weight unexpected" in nearest(extra)
    swin = {**state_of(NETWORKS["torchvision squeezenet"]), "features.3.more": torch.ones(2)}
    assert "torchvision squeezenet1_0" in nearest(swin)
    assert "no known architecture has tensors such as a.b" in nearest({"a.b": torch.ones(2)})


def test_the_words_of_a_file_give_the_normalisation_and_the_order():
    state = state_of(NETWORKS["mlp"])
    words = {"mean": (0.1, 0.2, 0.3), "std": [0.5]}
    assert recognise(state, words)[0].normalization == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    beside = {"mu": torch.zeros(1, 3, 1, 1), "sigma": torch.ones(1, 3, 1, 1)}
    assert recognise(state | beside, {})[0].normalization == ((0.0,) * 3, (1.0,) * 3)
    assert recognise(state, {})[0].normalization is None


HOSTILE_WORDS = [
    {"model_name": "os.system", "architecture": "os:system"},
    {"architecture": "hf_hub:someone/model"},
    {"architecture": "../../etc/passwd", "num_classes": -1},
    {"architecture": ["resnet18"], "model_name": {"a": 1}},
    {"mean": ["a", "b", "c"], "std": [0, 0, 0]},
    {"mean": [float("nan")] * 3, "std": [1, 1, 1]},
    {"architecture": "x" * 10**6},
]


@pytest.mark.parametrize("words", HOSTILE_WORDS, ids=str)
def test_wrong_words_change_nothing(words):
    state = state_of(NETWORKS["mlp"])
    assert recognise(state, words) == recognise(state, {})


def meta(*shape):
    return torch.empty(shape, device="meta")


# Made by the test, since they are many.
HOSTILE_TENSORS = {
    "none": lambda: {},
    "no names": lambda: {"": meta(2)},
    "many names": lambda: {f"layer{i}.0.conv1.weight": meta(1) for i in range(100_000)},
    "many blocks": lambda: {
        "conv1.weight": meta(8, 3, 3, 3), "bn1.weight": meta(8), "fc.weight": meta(2, 8),
        **{f"layer1.{i}.conv1.weight": meta(8, 8, 3, 3) for i in range(19_000)},
    },
    "many stages": lambda: {
        "conv1.weight": meta(8, 3, 3, 3), "bn1.weight": meta(8), "fc.weight": meta(2, 8),
        **{f"layer{i}.0.conv1.weight": meta(8, 8, 3, 3) for i in range(1, 300)},
    },
    "billions": lambda: {
        "conv1.weight": meta(10**6, 10**6, 3, 3), "bn1.weight": meta(10**9),
        "layer1.0.conv1.weight": meta(10**6, 10**6, 3, 3), "fc.weight": meta(10**9, 10**9),
    },
    "huge index": lambda: {
        "features.0.weight": meta(4, 3, 3, 3), "classifier.weight": meta(2, 4),
        "features.99999999999999999999.weight": meta(4, 4, 3, 3),
    },
    "other digits": lambda: {
        "features.0.weight": meta(4, 3, 3, 3), "features.².weight": meta(4),
        "classifier.weight": meta(2, 4),
    },
    "no elements": lambda: {"features.0.weight": meta(0, 3, 3, 3), "classifier.weight": meta(0, 0)},
    "scalars": lambda: {
        "features.0.weight": meta(), "classifier.weight": meta(), "layers.0.weight": meta(),
        "layers.2.weight": meta(), "conv1.weight": meta(), "layer1.0.conv1.weight": meta(),
    },
    "lines": lambda: {"a\nb.conv1.weight": meta(2), "\x1b[2J.layers.0.weight": meta(3, 4)},
    "long name": lambda: {"module." * 10_000 + "conv1.weight": meta(2)},
    "many prefixes": lambda: {f"a{i}.features.0.weight": meta(4, 3, 3, 3) for i in range(19_000)},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_TENSORS)
def test_senseless_tensors_are_no_network_and_take_no_time(name):
    tensors = HOSTILE_TENSORS[name]()
    start = time.process_time()
    assert recognise(tensors, {}) == []
    text = nearest(tensors)
    assert text.isprintable()
    assert len(text) < 1000
    assert time.process_time() - start < 20


def test_the_global_random_state_stays():
    before = torch.random.get_rng_state()
    recognise(state_of(NETWORKS["torchvision resnet18"]), {})
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_name_in_the_words_comes_first():
    state = state_of(NETWORKS["own vgg"])
    assert recognise(state, {"model_name": "vgg16"})[0].settings["network"] == "vgg16"
