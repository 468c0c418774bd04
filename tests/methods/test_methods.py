"""Each method fitted for real on a small subject: a row a method."""

from functools import partial

import pytest
import torch
from support import references
from support.builders import sgd
from support.distillation import distill, exact, fitted, inner

from cwx.explanations.class_images import DivergedError
from cwx.functional.augmentation import Crop, Strategy
from cwx.functional.images import gaussian_blur
from cwx.functional.network_loss import NetworkLoss
from cwx.functional.unroll import Plain
from cwx.methods.activation import ActivationMaximisation
from cwx.networks.eval_mode import accuracy


def activation(subject, **settings):
    chosen = {
        "seed": 3,
        "stage": "activation",
        "images_per_class": 2,
        "initial_std": 1.0,
        "iterations": 40,
        "optimizer": sgd(1.0),
        "blur_sigma": 0.2,
        "blur_every": 4,
        "blur_position": "after",
        "clamp": True,
        "checkpoint_every": 10,
    }
    return ActivationMaximisation(subject=subject, **{**chosen, **settings})


METHODS = {"distill": distill, "activation": activation}


@pytest.mark.parametrize("name", METHODS)
def test_explanations_are_of_their_class(name, subject, tmp_path):
    found = fitted(METHODS[name](subject), tmp_path)
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.images.shape == (6, *subject.data.image_shape)
    network = subject.trained_network(subject.held_out[0])
    assert accuracy(network, [(found.images, found.labels, 6)]) == 1


class Power(Exception):
    pass


def stop_at(module, number):
    """Let the module fail in the step of that number."""
    step = module.training_step

    def training_step(batch, batch_idx):
        if module.global_step == number:
            raise Power
        return step(batch, batch_idx)

    module.training_step = training_step


@pytest.mark.parametrize("name", METHODS)
def test_a_cut_run_continues_to_the_same_images(name, subject, tmp_path):
    # The checkpoint before the interruption is that of step 10.
    settings = {"iterations": 16, "checkpoint_every": 5}
    whole = fitted(METHODS[name](subject, **settings), tmp_path / "whole")
    module = METHODS[name](subject, **settings)
    stop_at(module, 12)
    with pytest.raises(Power):
        fitted(module, tmp_path / "cut")
    resumed = fitted(METHODS[name](subject, **settings), tmp_path / "cut")
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
    vector = NetworkLoss(subject.network()).vector
    start, target = (vector(subject.held_out[0].state(epoch)) for epoch in (1, 3))
    assert module.reach(start, 0).dist(target) < 0.7 * start.dist(target)


def first_segment(module):
    return next(iter(module.batches.train_dataloader())).segments[0]


def test_one_step_is_the_gradient_of_the_distance(subject, tmp_path):
    module = distill(subject, iterations=1, segments=1, optimizer=sgd(1.0))
    before = module.explanations()
    start, target = first_segment(module)
    after = fitted(module, tmp_path)
    images = before.images.requires_grad_()
    start.requires_grad_()
    rate = torch.tensor(0.1)
    reached = references.descent(subject.network(), start, images, before.labels, rate, 5)
    distance = references.normalised_distance(start, reached, target)
    (gradient,) = torch.autograd.grad(distance, images)
    torch.testing.assert_close(after.images, images.detach() - gradient, rtol=1e-4, atol=1e-6)


def test_no_gradient_moves_the_images_further_than_the_clip(subject, tmp_path):
    before = distill(subject).explanations().images
    far, near = (
        fitted(
            distill(subject, iterations=1, optimizer=sgd(100.0), clip=clip), tmp_path / str(clip)
        ).images
        - before
        for clip in (1e9, 0.01)
    )
    assert far.square().mean().sqrt() > 0.02
    assert near.square().mean().sqrt() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(near / near.norm(), far / far.norm())


def test_projected_images_stay_in_the_pixel_range_at_every_step(subject, tmp_path):
    """Each step clamps: the next inner loop trains on clamped images."""
    settings = {"iterations": 4, "checkpoint_every": 4, "optimizer": sgd(50.0, momentum=0.5)}
    seen = []
    modules = [distill(subject, **settings, project=project) for project in (True, False)]
    step = modules[0].training_step
    modules[0].training_step = lambda *a: (seen.append(modules[0].set.images.clone()), step(*a))[1]
    clamped, free = (
        fitted(module, tmp_path / str(index)).images for index, module in enumerate(modules)
    )
    unit = subject.data.normalization.denormalize
    low, high = subject.data.normalization.pixel_range(free)
    for images in (*seen[1:], clamped):
        assert torch.equal(images.clamp(low, high), images)
        assert (images == low).any()
        assert (images == high).any()
    assert unit(free).min() < -0.1
    assert not torch.equal(clamped, free.clamp(low, high))


def test_a_cut_projected_run_continues_to_the_same_images(subject, tmp_path):
    whole = fitted(distill(subject, iterations=20, project=True), tmp_path / "whole")
    module = distill(subject, iterations=20, project=True)
    stop_at(module, 13)
    with pytest.raises(Power):
        fitted(module, tmp_path / "cut")
    resumed = fitted(distill(subject, iterations=20, project=True), tmp_path / "cut")
    assert torch.equal(resumed.images, whole.images)


WAYS = {
    "plain": Plain,
    "in parts": lambda loss: exact(loss, microbatch=2),
    "recomputed on the host": lambda loss: exact(loss, keep_every=2, offload=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_unroll_gives_the_same_images(way, subject, tmp_path):
    hard = inner(momentum=0.5, batch_size=4, augment=Strategy({"crop": Crop(shift=0.3)}))
    first, other = (
        fitted(distill(subject, unroll=unroll, iterations=3, inner=hard), tmp_path / name).images
        for name, unroll in (("exact", exact), (way, WAYS[way]))
    )
    torch.testing.assert_close(first, other, rtol=1e-4, atol=1e-5)


def test_batches_and_augmentation_of_the_inner_loop_change_the_result(subject, tmp_path):
    whole, parts, moved = (
        fitted(distill(subject, inner=inner(**given), iterations=2), tmp_path / str(i)).images
        for i, given in enumerate(
            ({}, {"batch_size": 2}, {"augment": Strategy({"crop": Crop(shift=0.5)})})
        )
    )
    assert not torch.equal(whole, parts)
    assert not torch.equal(whole, moved)


def test_a_learned_rate_stays_positive_and_travels_with_the_images(subject, tmp_path):
    module = distill(subject, learning_rate_lr=2.0)
    found = fitted(module, tmp_path)
    assert found.inner_learning_rate is not None
    assert found.inner_learning_rate.item() == pytest.approx(module.log_rate.exp().item())
    assert 0 < found.inner_learning_rate < 1
    assert found.inner_learning_rate != 0.1
    assert fitted(distill(subject, iterations=1), tmp_path / "fixed").inner_learning_rate is None


def test_one_step_of_the_rate_is_the_gradient_for_its_logarithm(subject, tmp_path):
    module = distill(subject, iterations=1, segments=1, learning_rate_lr=1.0)
    start, target = first_segment(module)
    images, labels = module.explanations().images, module.set.labels
    log_rate = torch.tensor(0.1).log().requires_grad_()
    start.requires_grad_()
    reached = references.descent(subject.network(), start, images, labels, log_rate.exp(), 5)
    references.normalised_distance(start, reached, target).backward()
    learned = fitted(module, tmp_path).inner_learning_rate
    assert learned.log().item() == pytest.approx((log_rate - log_rate.grad).item(), rel=1e-4)


def test_climbing_raises_every_logit(subject, tmp_path):
    module = activation(subject, clamp=False, blur_sigma=0.0)
    before = module.explanations()
    after = fitted(module, tmp_path)
    for images, more in ((before, after),):
        low, high = (
            module.network(e.images).gather(1, e.labels[:, None]).detach() for e in (images, more)
        )
        assert (high > low).all()


@pytest.mark.parametrize("position", ["before", "after"])
def test_the_blur_is_before_the_gradient_or_after_the_step(position, subject, tmp_path):
    """Against a literal loop, with the weight decay of the code that the paper cites."""
    settings = {"blur_sigma": 0.6, "blur_every": 3, "iterations": 7, "checkpoint_every": 7}
    optimizer = partial(torch.optim.SGD, lr=2.0, weight_decay=0.05)
    module = activation(subject, **settings, blur_position=position, optimizer=optimizer)
    images, labels = module.explanations().images, module.set.labels
    network, normalization = module.network, subject.data.normalization
    for step in range(1, 8):
        if position == "before" and step % 3 == 0:
            images = gaussian_blur(images, 0.6)
        images.requires_grad_()
        logits = network(images).gather(1, labels[:, None])
        (gradient,) = torch.autograd.grad(logits.sum(), images)
        images = images.detach() + 2 * (gradient - 0.05 * images.detach())
        if position == "after" and step % 3 == 0:
            images = gaussian_blur(images, 0.6)
        images = normalization.clamp(images)
    torch.testing.assert_close(fitted(module, tmp_path).images, images, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", ["before", "after"])
def test_a_cut_run_with_a_blur_continues_to_the_same_images(position, subject, tmp_path):
    settings = {"iterations": 12, "checkpoint_every": 4, "blur_every": 3}

    def module():
        return activation(subject, **settings, blur_position=position)

    whole = fitted(module(), tmp_path / "whole")
    cut = module()
    stop_at(cut, 9)
    with pytest.raises(Power):
        fitted(cut, tmp_path / "cut")
    assert torch.equal(fitted(module(), tmp_path / "cut").images, whole.images)


def test_clamped_images_stay_in_range(subject, tmp_path):
    unit = subject.data.normalization.denormalize(fitted(activation(subject), tmp_path).images)
    assert unit.min() >= -1e-6
    assert unit.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "inner.learning_rate is 0"),
        ({"steps": -1}, "inner steps is -1"),
        ({"momentum": 1.0}, "inner momentum is 1"),
        ({"batch_size": 0}, "inner.batch_size is 0"),
    ],
)
def test_impossible_inner_loops_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        inner(**settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("distill", {"images_per_class": 0}, "images_per_class is 0"),
        ("distill", {"initial_std": 0.0}, "initial_std is 0.0"),
        ("distill", {"learning_rate_lr": 0.0}, "learning_rate_lr is 0"),
        ("distill", {"clip": 0.0}, "clip is 0"),
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
