"""What users bring and a study does not take is refused, with the remedy."""

import re
from functools import partial

import pytest
import torch
from support.builders import Blobs, small_mlp

from cwx.data.corruption import Corrupted
from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet, Splits
from cwx.evaluations.outcome import Outcome
from cwx.explanations.images import Explanations
from cwx.functional.mask_search import SignDescent
from cwx.methods.gradcam import GradCamRegions
from cwx.study.contracts import (
    NETWORK,
    check_builds,
    check_explains,
    check_fitted,
    check_left,
    check_measured,
    check_optimizer,
)


class Method:
    def __init__(self, *, subject, seed, stage, rate):
        pass

    def explanations(self):
        pass


class Mute:
    def __init__(self, **_):
        pass


class Unnamed:
    def __init__(self, *, subject, seed):
        pass


def made(*, subject, seed, stage):
    return Method(subject=subject, seed=seed, stage=stage, rate=1)


@pytest.mark.parametrize(
    "build", [partial(Method, rate=1), made, partial(made), partial(GradCamRegions, explains="a",
    classes=None, canvas=None, canvases=1, layer=None)]
)  # fmt: skip
def test_methods_that_a_study_can_build_are_taken(build):
    check_explains("mine", build)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (Unnamed, "method.mine (Unnamed) cannot be built (got an unexpected keyword argument "
         "'stage'): it is called with subject, seed, stage and its settings, all by keyword"),
        (partial(Method), "cannot be built (missing a required argument: 'rate')"),
        (Mute, "method.mine (Mute) has no explanations(): give it one that returns what it leaves, "
         "one of cwx.explanations.images.Explanations, "),
    ],
)  # fmt: skip
def test_a_method_that_cannot_be_built_or_leaves_nothing_is_refused(build, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        check_explains("mine", build)


def test_a_network_is_told_of_the_data():
    check_builds("network", small_mlp, NETWORK)
    check_builds("network", dict, NETWORK)
    said = "network (SqueezeNet) cannot be built (missing a required argument: 'depth'): it is "
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        check_builds("network", partial(SqueezeNet, width=3), NETWORK)
    assert str(refused.value).endswith("is for network=external")


class SqueezeNet:
    def __init__(self, *, in_channels, image_size, num_classes, width, depth):
        pass


class Trained:
    def training_step(self):
        pass


@pytest.mark.parametrize(
    ("has", "said"),
    [
        ({}, "has a training_step, but no epochs and no batches: set self.batches"),
        ({"epochs": 1}, "has a training_step, but no batches: "),
        ({"epochs": 1, "batches": []}, None),
    ],
)
def test_a_method_that_trains_says_on_what(has, said):
    method = Trained()
    vars(method).update(has)
    check_fitted("mine", object())
    if said is None:
        check_fitted("mine", method)
        return
    with pytest.raises(ValueError, match=re.escape(f"method.mine (Trained) {said}")):
        check_fitted("mine", method)


def left(count, labels, *, shape=(2, 4, 4), dtype=torch.float32):
    return Explanations(torch.zeros(count, *shape, dtype=dtype), torch.tensor(labels))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (torch.zeros(3, 2, 4, 4), "is of type Tensor: return one of "),
        (left(2, [0, 1, 2]), "has images [2, 2, 4, 4] of torch.float32 for 3 labels: give "
         "normalised floats [3, 2, 4, 4]"),
        (left(2, [0, 1], shape=(1, 4, 4)), "normalised floats [2, 2, 4, 4]"),
        (left(2, [0, 1], dtype=torch.uint8), "of torch.uint8 for 2 labels"),
        (left(2, [0, 3]), "give one class index in 0-2 for each image"),
        (left(2, [-1, 0]), "give one class index"),
        (left(2, [0.0, 1.0]), "has labels [2] of torch.float32"),
    ],
)  # fmt: skip
def test_what_nobody_could_read_is_refused(data, found, said):
    check_left("mine", left(3, [0, 1, 2]), data)
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        check_left("mine", found, data)
    assert str(refused.value).startswith("explanations() of method.mine ")


def test_an_evaluation_returns_an_outcome():
    check_measured("mine", Outcome(tables={"a": [{"b": 1}]}))
    with pytest.raises(ValueError, match=re.escape("evaluation.mine returned a dict: return a")):
        check_measured("mine", {"a": 1})
    with pytest.raises(ValueError, match="the table 'a' without a row: leave it out"):
        check_measured("mine", Outcome(tables={"a": []}))


class Broken(Blobs):
    """Blobs of which one thing is wrong."""

    def __init__(self, change):
        self.change = change

    def load(self):
        whole = super().load()
        return Splits(self.change(whole.train), whole.test, whole.classes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: ImageSet(s.images / 255, s.labels), "train images [60, 2, 4, 4] of "
         "torch.float32: give bytes"),
        (lambda s: ImageSet(s.images[:, 0], s.labels), "train images [60, 4, 4]"),
        (lambda s: ImageSet(s.images[..., :3], s.labels), "train images [60, 2, 4, 3]"),
        (lambda s: ImageSet(s.images, s.labels[1:]), "train labels [59] of torch.int64 for 60"),
        (lambda s: ImageSet(s.images, s.labels.int()), "train labels [60] of torch.int32"),
        (lambda s: ImageSet(s.images, s.labels + 1), "train labels in 1-3, and 3 classes"),
    ],
)  # fmt: skip
def test_data_that_a_study_could_not_read_are_refused(change, said):
    data = ImageData(source=Broken(change), mean=0.5, std=0.5, batch_size=4, per_class=None)
    with pytest.raises(ValueError, match=re.escape(f"data.source gives {said}")):
        data.setup()


def test_a_corruption_returns_all_images(data):
    fresh = ImageData(source=Blobs(), mean=0.5, std=0.5, batch_size=4, per_class=None)
    fresh.setup()
    for returned in (
        fresh.clean,
        Corrupted(fresh.clean.at(torch.arange(3)), torch.zeros(3, dtype=torch.bool), None),
    ):
        with pytest.raises(ValueError, match="for 60 images: return a cwx"):
            fresh.corrupt(lambda *_, returned=returned: returned)
    assert len(fresh.corrupted.images) == 60


@pytest.mark.parametrize(
    ("made", "settings", "said"),
    [
        (torch.optim.SGD, {"lr": -1, "momentum": 0.5}, "SGD) does not take lr=-1, momentum=0.5 ("),
        (torch.optim.SGD, {"rate": 1}, "SGD) does not take rate=1 ("),
        (SignDescent, {"lr": 0}, "SignDescent) does not take lr=0 (the rate is 0: give one above"),
    ],
)
def test_settings_that_an_optimizer_refuses_are_named(made, settings, said):
    build = partial(Method, optimizer=partial(made, **settings))
    with pytest.raises(ValueError, match=re.escape(f"method.mine.optimizer ({said}")):
        check_optimizer("method.mine", build)


def test_parts_whose_optimizer_takes_its_settings_or_without_one_pass():
    check_optimizer("method.mine", partial(Method, optimizer=partial(torch.optim.SGD, lr=0.1)))
    check_optimizer("method.mine", partial(Method, rate=1))
    check_optimizer("method.mine", Method)
