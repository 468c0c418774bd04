"""Each method fitted for real on a small subject: a row a method."""

import pytest
import references
import torch
from conftest import sgd, trainer

from cwx.explanations import DivergedError
from cwx.functional.distances import normalised_distance
from cwx.functional.losses import inner_loss
from cwx.functional.unroll import unroll, unroll_plain
from cwx.methods.activation import ActivationMaximisation
from cwx.methods.distill import Distill
from cwx.networks.modes import accuracy
from cwx.stages import Stages


def distill(subject, **settings):
    chosen = {
        "seed": 3,
        "stage": "distill",
        "images_per_class": 2,
        "iterations": 40,
        "segments": 2,
        "inner_steps": 5,
        "span": 2,
        "start_min": 0,
        "start_max": 2,
        "inner_rate": 0.1,
        "optimizer": sgd(20.0, momentum=0.5),
        "distance": normalised_distance,
        "unroll": unroll,
        "checkpoint_every": 10,
    }
    return Distill(subject=subject, **{**chosen, **settings})


def activation(subject, **settings):
    chosen = {
        "seed": 3,
        "stage": "activation",
        "images_per_class": 2,
        "iterations": 40,
        "optimizer": sgd(1.0),
        "blur_sigma": 0.2,
        "blur_every": 4,
        "clamp": True,
        "checkpoint_every": 10,
    }
    return ActivationMaximisation(subject=subject, **{**chosen, **settings})


METHODS = {"distill": distill, "activation": activation}


def fitted(module, folder, **settings):
    Stages(lambda **given: trainer(**given, **settings)).fit(module, folder / "m.ckpt", [])
    return module.explanations()


@pytest.mark.parametrize("name", METHODS)
def test_explanations_are_of_their_class(name, subject, tmp_path):
    found = fitted(METHODS[name](subject), tmp_path)
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.images.shape == (6, *subject.data.image_shape)
    network = subject.trained(subject.held_out[0])
    assert accuracy(network, [(found.images, found.labels, 6)]) == 1


@pytest.mark.parametrize("name", METHODS)
def test_a_cut_run_continues_to_the_same_images(name, subject, tmp_path):
    whole = fitted(METHODS[name](subject), tmp_path / "whole")

    class Power(Exception):
        pass

    module = METHODS[name](subject)
    step = module.training_step

    def training_step(batch, batch_idx):
        if module.global_step == 27:
            raise Power
        return step(batch, batch_idx)

    module.training_step = training_step
    with pytest.raises(Power):
        fitted(module, tmp_path / "cut")
    resumed = fitted(METHODS[name](subject), tmp_path / "cut")
    assert torch.equal(resumed.images, whole.images)


@pytest.mark.parametrize("name", METHODS)
def test_a_seed_gives_one_result(name, subject, tmp_path):
    first, same, other = (
        fitted(METHODS[name](subject, seed=seed, iterations=5), tmp_path / str(i)).images
        for i, seed in enumerate((1, 1, 2))
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", METHODS)
def test_divergence_keeps_the_last_finite_images(name, subject, tmp_path):
    settings = {"clamp": False, "blur_sigma": 0.0} if name == "activation" else {}
    module = METHODS[name](subject, optimizer=sgd(1e38), **settings)
    with pytest.raises(DivergedError, match=f"method.{name}.optimizer.lr") as caught:
        fitted(module, tmp_path)
    assert caught.value.last_good.images.isfinite().all()


def test_distilled_images_lead_where_training_leads(subject, tmp_path):
    module = distill(subject)
    fitted(module, tmp_path)
    start, target = (
        [subject.held_out[0].state(epoch)[name] for name in module.names] for epoch in (1, 3)
    )
    reached = module.reach(tuple(start))
    arrived = references.flat(reached).dist(references.flat(target))
    stood_still = references.flat(start).dist(references.flat(target))
    assert arrived < 0.7 * stood_still


def test_one_step_is_the_gradient_of_the_distance(subject, tmp_path):
    module = distill(subject, iterations=1, segments=1, optimizer=sgd(1.0))
    before = module.explanations()
    segment = next(iter(module.batches.train_dataloader())).segments[0]
    after = fitted(module, tmp_path)
    start, target = ([state[name] for name in module.names] for state in segment)
    images = before.images.requires_grad_()
    loss = inner_loss(module.network, module.names, before.labels)
    start = [p.requires_grad_() for p in start]
    reached = references.descent(loss, start, images, torch.tensor(0.1), 5)
    distance = references.normalised_distance(start, reached, target)
    (gradient,) = torch.autograd.grad(distance, images)
    torch.testing.assert_close(after.images, images.detach() - gradient, rtol=1e-4, atol=1e-6)


def test_both_ways_to_unroll_give_the_same_images(subject, tmp_path):
    exact, plain = (
        fitted(distill(subject, unroll=way, iterations=3), tmp_path / way.__name__).images
        for way in (unroll, unroll_plain)
    )
    torch.testing.assert_close(exact, plain, rtol=1e-4, atol=1e-5)


def test_climbing_raises_every_logit(subject, tmp_path):
    module = activation(subject, clamp=False, blur_sigma=0.0)
    before = module.explanations()
    after = fitted(module, tmp_path)
    for images, more in ((before, after),):
        low, high = (
            module.network(e.images).gather(1, e.labels[:, None]).detach() for e in (images, more)
        )
        assert (high > low).all()


def test_clamped_images_stay_in_range(subject, tmp_path):
    unit = subject.data.normalization.denormalize(fitted(activation(subject), tmp_path).images)
    assert unit.min() >= -1e-6
    assert unit.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("distill", {"images_per_class": 0}, "images_per_class is 0"),
        ("distill", {"inner_rate": 0.0}, "inner_rate is 0"),
        ("distill", {"iterations": 0}, "iterations is 0"),
        ("distill", {"start_max": 3}, "exceeds the 4 recorded epochs"),
        ("activation", {"images_per_class": 0}, "images_per_class is 0"),
        ("activation", {"blur_every": 0}, "blur_every is 0"),
        ("activation", {"checkpoint_every": 0}, "checkpoint_every is 0"),
    ],
)
def test_impossible_settings_are_refused(name, settings, message, subject):
    with pytest.raises(ValueError, match=message):
        METHODS[name](subject, **settings)
