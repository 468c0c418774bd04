"""The largest margins of a small subject's classes."""

from dataclasses import replace

import pytest
import torch
from support.builders import Blobs, image_data, sgd, stages

from cwx.explanations.margins import Margins
from cwx.functional.maximum_margin import margins
from cwx.functional.rng import stream
from cwx.methods.maximum_margin import MaximumMargin
from cwx.study.results import Results
from cwx.training.plan import Plan


def maximum_margin(subject, **settings):
    chosen = {
        "seed": 3,
        "stage": "maximum_margin",
        "explains": "expert",
        "classes": None,
        "starts": 4,
        "iterations": 12,
        "optimizer": sgd(0.05, 0.2),
        "chunk": None,
        "checkpoint_every": 4,
    }
    return MaximumMargin(subject=subject, **{**chosen, **settings})


def fitted(module, folder, **settings):
    stages(**settings).fit(module, folder / "m.ckpt", [])
    return module.explanations()


@pytest.fixture(scope="module")
def output(subject, tmp_path_factory):
    return fitted(maximum_margin(subject), tmp_path_factory.mktemp("maximum_margin"))


def test_the_margins_are_those_of_a_literal_search(subject, output):
    network, normalize = subject.first_network("expert"), subject.data.normalization.normalize
    for label in range(3):
        reached, images = [], []
        for start in range(4):
            image = torch.rand(subject.data.image_shape, generator=stream(3, label, start))
            velocity = torch.zeros_like(image)
            for _ in range(12):
                image.requires_grad_()
                logits = network(normalize(image[None]))[0]
                margin = logits[label] - logits[[j for j in range(3) if j != label]].max()
                (gradient,) = torch.autograd.grad(margin, image)
                velocity = 0.2 * velocity + gradient
                image = (image.detach() + 0.05 * velocity).clamp(0, 1)
            images.append(image)
            reached.append(margins(network(normalize(image[None])), torch.tensor([label])).item())
        torch.testing.assert_close(output.start_margins[label], torch.tensor(reached))
        best = images[torch.tensor(reached).argmax()]
        torch.testing.assert_close(output.unit_images[label], best)
        assert output.margins[label].item() == pytest.approx(max(reached))


def test_the_images_reach_the_margins(subject, output):
    assert output.labels.tolist() == [0, 1, 2]
    assert output.start_margins.shape == (3, 4)
    assert output.explains == "expert"
    assert output.unit_images.min() >= 0
    assert output.unit_images.max() <= 1
    network = subject.first_network("expert")
    images = output.for_display(subject.data.normalization).images
    torch.testing.assert_close(margins(network(images), output.labels), output.margins)


def test_more_steps_and_starts_reach_higher_margins(subject, output, tmp_path):
    before = maximum_margin(subject, iterations=1, checkpoint_every=1, optimizer=sgd(1e-9))
    assert (fitted(before, tmp_path / "a").margins < output.margins).all()
    fewer = fitted(maximum_margin(subject, starts=2), tmp_path / "b")
    torch.testing.assert_close(fewer.start_margins, output.start_margins[:, :2])


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_chunks_do_not_change_the_margins(chunk, subject, output, tmp_path):
    other = fitted(maximum_margin(subject, chunk=chunk), tmp_path)
    torch.testing.assert_close(other.start_margins, output.start_margins, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other.unit_images, output.unit_images, rtol=0, atol=1e-5)


def test_no_class_depends_on_the_others(subject, output, tmp_path):
    alone = fitted(maximum_margin(subject, classes=["right"]), tmp_path)
    assert alone.labels.tolist() == [2]
    torch.testing.assert_close(alone.start_margins, output.start_margins[2:])


def test_a_cut_run_continues_to_the_same_margins(subject, output, tmp_path):
    class Power(Exception):
        pass

    module = maximum_margin(subject)
    step = module.training_step

    def training_step(batch, batch_idx):
        if module.global_step == 7:
            raise Power
        return step(batch, batch_idx)

    module.training_step = training_step
    with pytest.raises(Power):
        fitted(module, tmp_path)
    resumed = fitted(maximum_margin(subject), tmp_path)
    assert torch.equal(resumed.start_margins, output.start_margins)
    assert torch.equal(resumed.unit_images, output.unit_images)


def test_a_seed_gives_one_result(subject, output, tmp_path):
    same, other = (
        fitted(maximum_margin(subject, seed=seed), tmp_path / str(seed)) for seed in (3, 4)
    )
    assert torch.equal(same.unit_images, output.unit_images)
    assert not torch.equal(other.unit_images, output.unit_images)


def test_margins_come_back_from_their_file(output, tmp_path):
    Results(tmp_path).add_explanations("maximum_margin", output)
    read = Results(tmp_path).explanations()["maximum_margin"]
    assert isinstance(read, Margins)
    assert torch.equal(read.start_margins, output.start_margins)
    assert torch.equal(read.unit_images, output.unit_images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"starts": 0}, r"method\.maximum_margin\.starts is 0: give 1 or more"),
        ({"chunk": 0}, "maximum_margin.chunk is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"classes": ["up"]}, r"method\.maximum_margin\.classes is 'up'"),
        ({"classes": []}, "classes is empty"),
        ({"explains": "nothing"}, "no network called 'nothing'"),
    ],
)
def test_impossible_settings_are_refused(settings, message, subject):
    with pytest.raises(ValueError, match=message):
        maximum_margin(subject, **settings)


class OneClass(Blobs):
    classes = ("left",)

    def _set(self, per_class, seed):
        images = super()._set(per_class, seed)
        return images.at(images.labels == 0)


def plan(data):
    return Plan(data=data, methods=["maximum_margin"], held_out=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["up"], "starts": 1}, "no such class among the 3"),
        ({"classes": None, "starts": 10**9}, r"method\.maximum_margin\.starts is .* GiB"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_training(settings, message):
    with pytest.raises(ValueError, match=message):
        MaximumMargin.check(plan(image_data()), stage="maximum_margin", **settings)


def test_a_single_class_has_no_margin():
    with pytest.raises(ValueError, match="needs two classes or more.*the data have 1: leave"):
        MaximumMargin.check(
            plan(image_data(OneClass())), stage="maximum_margin", classes=None, starts=1
        )


def test_classes_without_images_are_searched(subject, tmp_path):
    """No image of the data is used."""
    data = image_data()
    data._splits = replace(data.splits, train=data.splits.train.empty())
    module = maximum_margin(replace(subject, data=data), iterations=4)
    assert fitted(module, tmp_path).labels.tolist() == [0, 1, 2]


def test_logits_that_are_no_numbers_are_refused(subject, tmp_path):
    module = maximum_margin(subject, iterations=4)
    with torch.no_grad():
        next(module.network.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="maximum_margin: the gradients at step 0 are not finite"):
        fitted(module, tmp_path)


def test_margins_after_the_last_step_are_refused_if_they_are_no_numbers(subject, tmp_path):
    """Not all steps are checked."""
    module = maximum_margin(subject, iterations=4)
    step = module.training_step

    def training_step(batch, batch_idx):
        if module.global_step == 2:
            next(module.network.parameters()).data.fill_(torch.nan)
        return step(batch, batch_idx)

    module.training_step = training_step
    with pytest.raises(ValueError, match="maximum_margin: the margins of the network 'expert' are"):
        fitted(module, tmp_path)
