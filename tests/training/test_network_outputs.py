"""Which networks fit which data: what they return in eval mode and in training mode."""

import logging
import re
from collections import OrderedDict, namedtuple

import pytest
import torch
import torchvision
from support.builders import Blobs, image_data, small_mlp
from torch import nn
from torch.nn import functional as F

from cwx.data.splits import Splits
from cwx.training.build import check_last_batch, check_outputs

# The network, its images and its logits.
Pass = namedtuple("Pass", "n x y")


class Network(nn.Module):
    """A network for the images of `data`, ``[n, 2, 4, 4]`` of three classes, and a change of it."""

    def __init__(self, change=None):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 6, 3), nn.Linear(24, 3)
        self.change = change

    def logits(self, images):
        return self.head(F.relu(self.conv(images)).flatten(1))

    def forward(self, images):
        if isinstance(self.change, Exception):
            raise self.change
        logits = self.logits(images)
        return self.change(Pass(self, images, logits)) if self.change else logits


def changed(change):
    return lambda **_: Network(change)


def in_training(change):
    return changed(lambda p: change(p.y) if p.n.training else p.y)


def convolutions(channels):
    return lambda **_: nn.Sequential(
        nn.Conv2d(channels, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def batch_norm(**_):
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def squeezenet(**_):
    """Its outputs are never negative, and all are zero for the first weights."""
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 3), nn.ReLU())


FITTING = {
    "mlp": small_mlp,
    "convolutions": convolutions(2),
    "batch norm": batch_norm,
    "outputs that are not negative": squeezenet,
    "zeros": changed(lambda p: p.y * 0),
    "dropout": changed(lambda p: F.dropout(p.y, training=p.n.training)),
    "small outputs": changed(
        lambda p: p.n.head(p.n.head.weight.new_zeros(len(p.x), 24)) + p.y * 0.1
    ),
    "a mask of its own": changed(lambda p: p.y.clone()),
}


@pytest.mark.parametrize("case", FITTING)
def test_a_network_that_fits_passes(data, case, caplog):
    state = torch.get_rng_state()
    check_outputs("network", FITTING[case], data, trains=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert not caplog.text


Output = namedtuple("Output", ["logits", "aux_logits"])
IMAGES = "does not take the data's images of 2 channels and 4x4 pixels"
REMEDY = "set data.source.channels and data.source.size to its input shape, or choose"
ALONE = "set network.build._target_ to a network that returns"
BATCH = "returns other logits for an image if other images are in its batch"
UNFIT = {
    "channels": (
        convolutions(3),
        f"network (Sequential for images of 3 channels) {IMAGES} (Given groups=1, weight of",
    ),
    "size": (
        lambda **_: nn.Sequential(nn.Conv2d(2, 3, 7)),
        "(Sequential for images of 2 channels) does not take the data's images of 2 channels",
    ),
    "an assertion": (changed(AssertionError("Wrong image height!")), f"{IMAGES} (Wrong image"),
    "no reason": (changed(AssertionError()), f"{IMAGES} (AssertionError): {REMEDY}"),
    "many lines": (changed(RuntimeError("no\nway")), f"{IMAGES} (no): {REMEDY}"),
    "too few logits": (
        changed(lambda p: p.y[:, :2]),
        "network returns outputs of shape (3, 2) for 3 images, but the data have 3 classes",
    ),
    "a map": (
        changed(lambda p: p.y[..., None, None]),
        "returns outputs of shape (3, 3, 1, 1) for 3 images, but the data have 3 classes: it must "
        "return one logit per class: end it with flatten(1)",
    ),
    "a dict": (
        changed(lambda p: OrderedDict(out=p.y, aux=p.y)),
        f"returns a OrderedDict of out, aux: it must return one logit per class; {ALONE} its 'out'",
    ),
    "an object": (
        changed(lambda p: type("ModelOutput", (), {"logits": p.y})()),
        f"returns a ModelOutput: it must return one logit per class; {ALONE} its 'logits' alone",
    ),
    "a tuple": (changed(lambda p: (p.y, p.x)), f"a tuple of Tensor, Tensor: it must return one "
                f"logit per class; {ALONE} the logits alone"),
    "a tuple in training mode": (
        in_training(lambda y: Output(y, y)),
        "returns a Output of logits, aux_logits in training mode: it must return one logit per "
        "class; build it without auxiliary classifiers (+network.build.aux_logits=false",
    ),
    "a loss in training mode": (
        in_training(lambda y: y.mean()), "returns outputs of shape () in training mode for 3",
    ),
    "live dropout": (
        changed(lambda p: F.dropout(p.y)),
        "returns other logits for the same images in a second pass in eval mode: dropout or noise",
    ),
    "noise": (changed(lambda p: p.y + 0.1 * torch.randn_like(p.y)), "in a second pass"),
    "statistics of the batch": (
        lambda **_: nn.Sequential(Network(), nn.BatchNorm1d(3, track_running_stats=False)), BATCH,
    ),
    "batch norm in training mode": (changed(lambda p: F.batch_norm(p.y, None, None,
                                            training=True)), BATCH),
    "softmax over images": (changed(lambda p: p.y.softmax(0)), BATCH),
    "softmax": (changed(lambda p: p.y.softmax(1)), "returns probabilities (each row sums to 1)"),
    "sigmoid": (changed(lambda p: p.y.sigmoid()), "returns numbers in 0-1 whatever its weights"),
    "NaN": (changed(lambda p: p.y / 0), "returns outputs that are not finite, for images of"),
    "halves": (changed(lambda p: p.y.half()), "returns outputs of torch.float16: it must"),
    "doubles": (changed(lambda p: p.y.double()), "returns outputs of torch.float64: it must"),
    "indices": (changed(lambda p: p.y.long()), "without gradients to the images|torch.int64"),
    "no gradient": (changed(lambda p: p.y.detach()), "returns logits without gradients to the"),
    "in place": (
        changed(lambda p: p.n.logits(p.x.mul_(2))), "network changes its input in place: let it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_a_network_that_does_not_fit_the_data_is_refused(data, case):
    factory, message = UNFIT[case]
    pattern = "|".join(map(re.escape, message.split("|")))
    with pytest.raises(ValueError, match=pattern) as caught:
        check_outputs("network", factory, data, trains=True)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("network ")


def test_training_mode_does_not_matter_for_networks_that_are_not_trained(data):
    check_outputs("network", UNFIT["a tuple in training mode"][0], data, trains=False)


def test_logarithms_of_probabilities_are_accepted_and_said(data, caplog):
    caplog.set_level(logging.WARNING)
    check_outputs("network", changed(lambda p: p.y.log_softmax(1)), data, trains=True)
    assert "network returns logarithms of probabilities, which are logits up to" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_auxiliary_classifiers_of_torchvision_are_refused(name):
    class Large(Blobs):
        def load(self):
            whole = super().load()
            images = whole.test.images[:3, :1].repeat(1, 3, 32, 32)
            test = type(whole.test)(images, whole.test.labels[:3])
            return Splits(test, test, whole.classes)

    def factory(aux_logits):
        build = getattr(torchvision.models, name)
        return lambda **_: build(num_classes=3, aux_logits=aux_logits, init_weights=False)

    data = image_data(Large(), mean=0.5, std=0.5)
    with pytest.raises(ValueError, match=r"in training mode.*aux_logits=false"):
        check_outputs("network", factory(True), data, trains=True)
    check_outputs("network", factory(False), data, trains=True)


@pytest.mark.parametrize("size", [59, 1])
def test_a_last_batch_of_one_image_names_the_batch_size(data, size):
    assert len(data.splits.train) == 60
    message = f"recipe.batch_size is {size}: the last batch of 60 training images has one image"
    with pytest.raises(ValueError, match=message) as refused:
        check_last_batch("network", batch_norm, data, size)
    other = int(re.search(r"such as (\d+)", str(refused.value))[1])
    check_last_batch("network", batch_norm, data, other)


@pytest.mark.parametrize(("factory", "size"), [(small_mlp, 59), (batch_norm, 58), (batch_norm, 60)])
def test_other_last_batches_pass(data, factory, size):
    check_last_batch("network", factory, data, size)
