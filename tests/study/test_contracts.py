"""Invalid networks, methods, evaluations and data of users are refused with a remedy."""

import re
from functools import partial

import pytest
import torch
from support.builders import Blobs, small_mlp

from cwx.data.corruption import CorruptionResult
from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet, Splits
from cwx.evaluations.outcome import Outcome
from cwx.explanations.images import Explanations
from cwx.functional.mask_search import SignDescent
from cwx.methods.gradcam import GradCamRegions
from cwx.study.contracts import (
    NETWORK,
    check_builds,
    check_distinct,
    check_explains,
    check_fit_attributes,
    check_method_output,
    check_optimizer,
    check_outcome,
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
def test_valid_methods_pass(build):
    check_explains("mine", build)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Unnamed, "method.mine (Unnamed) cannot be built (got an unexpected keyword argument "
         "'stage'): it must accept subject, seed, stage and its settings, all by keyword"),
        (partial(Method), "cannot be built (missing a required argument: 'rate')"),
        (Mute, "method.mine (Mute) has no explanations(): define it to return "
         "one of cwx.explanations.images.Explanations, "),
    ],
)  # fmt: skip
def test_a_method_that_cannot_be_built_or_has_no_explanations_is_refused(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_explains("mine", build)


def test_a_network_must_accept_the_shape_of_the_data():
    check_builds("network", small_mlp, NETWORK)
    check_builds("network", dict, NETWORK)
    message = "network (SqueezeNet) cannot be built (missing a required argument: 'depth'): it "
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        check_builds("network", partial(SqueezeNet, width=3), NETWORK)
    assert str(refused.value).endswith("choose network=external")


class SqueezeNet:
    def __init__(self, *, in_channels, image_size, num_classes, width, depth):
        pass


class Trained:
    def training_step(self):
        pass


@pytest.mark.parametrize(
    ("has", "message"),
    [
        ({}, "has a training_step, but no epochs and no batches: set self.batches"),
        ({"epochs": 1}, "has a training_step, but no batches: "),
        ({"epochs": 1, "batches": []}, None),
    ],
)
def test_a_method_with_a_training_step_needs_batches_and_epochs(has, message):
    method = Trained()
    vars(method).update(has)
    check_fit_attributes("mine", object())
    if message is None:
        check_fit_attributes("mine", method)
        return
    with pytest.raises(ValueError, match=re.escape(f"method.mine (Trained) {message}")):
        check_fit_attributes("mine", method)


def left(count, labels, *, shape=(2, 4, 4), dtype=torch.float32):
    return Explanations(torch.zeros(count, *shape, dtype=dtype), torch.tensor(labels))


@pytest.mark.parametrize(
    ("found", "message"),
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
def test_invalid_explanations_are_refused(data, found, message):
    check_method_output("mine", left(3, [0, 1, 2]), data)
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        check_method_output("mine", found, data)
    assert str(refused.value).startswith("explanations() of method.mine ")


def test_an_evaluation_must_return_an_outcome():
    check_outcome("mine", Outcome(tables={"a": [{"b": 1}]}))
    with pytest.raises(ValueError, match=re.escape("evaluation.mine returned a dict: return a")):
        check_outcome("mine", {"a": 1})
    with pytest.raises(ValueError, match="the table 'a' without rows: leave it out"):
        check_outcome("mine", Outcome(tables={"a": []}))


def test_files_of_an_evaluation_lie_in_folders_of_the_run():
    check_outcome("mine", Outcome(files={"mine/a.png": b"x"}))
    for name in ("status.json", "../a.png", "mine/../../a.png", "/tmp/a.png"):
        with pytest.raises(ValueError, match="evaluation.mine returned the file .*such as mine/"):
            check_outcome("mine", Outcome(files={name: b"x"}))


@pytest.mark.parametrize("kind", ["metrics", "tables", "figures", "files"])
def test_two_parts_may_not_write_under_one_name(kind):
    first, second = (Outcome(**{kind: {name: 1, "x": 2}}) for name in ("a", "b"))
    check_distinct({"evaluation.one": first})
    with pytest.raises(ValueError, match=f"evaluation.one and corruption both write {kind} .*'x'"):
        check_distinct({"evaluation.one": first, "corruption": second})


class Broken(Blobs):
    """Blobs with a change of the training images."""

    def __init__(self, change):
        self.change = change

    def load(self):
        whole = super().load()
        return Splits(self.change(whole.train), whole.test, whole.classes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: ImageSet(s.images / 255, s.labels), "train images [60, 2, 4, 4] of "
         "torch.float32: give bytes"),
        (lambda s: ImageSet(s.images[:, 0], s.labels), "train images [60, 4, 4]"),
        (lambda s: ImageSet(s.images[..., :3], s.labels), "train images [60, 2, 4, 3]"),
        (lambda s: ImageSet(s.images, s.labels[1:]), "train labels [59] of torch.int64 for 60"),
        (lambda s: ImageSet(s.images, s.labels.int()), "train labels [60] of torch.int32"),
        (lambda s: ImageSet(s.images, s.labels + 1), "train labels in 1-3"),
    ],
)  # fmt: skip
def test_invalid_data_are_refused(change, message):
    data = ImageData(
        source=Broken(change), mean=0.5, std=0.5, batch_size=4, per_class=None, total=None
    )
    with pytest.raises(ValueError, match=re.escape(f"data.source gives {message}")):
        data.setup()


def test_a_corruption_must_return_all_images(data):
    fresh = ImageData(source=Blobs(), mean=0.5, std=0.5, batch_size=4, per_class=None, total=None)
    fresh.setup()
    for returned in (
        fresh.clean,
        CorruptionResult(fresh.clean.at(torch.arange(3)), torch.zeros(3, dtype=torch.bool), None),
    ):
        with pytest.raises(ValueError, match="for 60 images: return a cwx"):
            fresh.corrupt(lambda *_, returned=returned: returned)
    assert len(fresh.corrupted.images) == 60


@pytest.mark.parametrize(
    ("made", "settings", "message"),
    [
        (
            torch.optim.SGD,
            {"lr": -1, "momentum": 0.5},
            "SGD) does not accept lr=-1, momentum=0.5 (",
        ),
        (torch.optim.SGD, {"rate": 1}, "SGD) does not accept rate=1 ("),
        (
            SignDescent,
            {"lr": 0},
            "SignDescent) does not accept lr=0 (the learning rate lr is 0: give",
        ),
    ],
)
def test_settings_that_an_optimizer_refuses_are_in_the_message(made, settings, message):
    build = partial(Method, optimizer=partial(made, **settings))
    with pytest.raises(ValueError, match=re.escape(f"method.mine.optimizer ({message}")):
        check_optimizer("method.mine", build)


def test_parts_without_an_optimizer_or_with_a_valid_one_pass():
    check_optimizer("method.mine", partial(Method, optimizer=partial(torch.optim.SGD, lr=0.1)))
    check_optimizer("method.mine", partial(Method, rate=1))
    check_optimizer("method.mine", Method)
