"""Attacks: the laws of their balls, closed forms on linear networks, and what they leave alone."""

import math
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import references
from torch import nn

from cwx.functional.attacks import L2, Attack, Linf, cross_entropy, no_attack
from cwx.functional.images import Normalization
from cwx.functional.rng import stream
from cwx.networks.eval_mode import eval_mode

SHAPE = (3, 4, 5)
FGS = Attack(ball=Linf(), epsilon=8, scale=255, step=8, steps=1, random_start=False, targeted=False)
PGD = replace(FGS, step=2, steps=5, random_start=True)
PGD_L2 = replace(PGD, ball=L2(), epsilon=0.5, scale=1, step=0.2)
ATTACKS = {
    "fgs": FGS,
    "pgd": PGD,
    "l2": PGD_L2,
    "targeted": replace(PGD, targeted=True, random_start=False),
    "targeted l2": replace(PGD_L2, targeted=True),
    "noise": replace(PGD, steps=0),
}
NORMALIZATION = Normalization(mean=(0.5, 0.4, 0.45), std=(0.25, 0.2, 0.5))

each_ball = pytest.mark.parametrize("ball", [Linf(), L2()], ids=["linf", "l2"])
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
seeds = st.integers(0, 2**32)


def size(ball, delta):
    return delta.flatten(1).norm(p=torch.inf if ball == Linf() else 2, dim=1)


def noise(count=6, seed=0, scale=1.0):
    return scale * torch.randn(count, *SHAPE, dtype=torch.float64, generator=stream(seed))


def pictures(count=6, seed=0, dtype=torch.float64):
    """Unit images, some of whose pixels are black or white."""
    images = torch.rand(count, *SHAPE, dtype=dtype, generator=stream(seed, 1))
    return (1.4 * images - 0.2).clamp(0, 1)


def network(seed=0, dtype=torch.float64, classes=4):
    """In training mode, with everything that training mode changes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.GELU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(120, classes),
        ).to(dtype)


def attacked(attack, model, images, labels, *, normalization=NORMALIZATION, start=None, seed=0):
    """The attacked unit images."""
    start = attack.draw(len(images), SHAPE, stream(seed)) if start is None else start
    with eval_mode(model):
        adversarial = attack(
            cross_entropy(model),
            normalization.normalize(images),
            labels,
            normalization=normalization,
            start=start,
        )
    return normalization.denormalize(adversarial)


@each_ball
@given(seed=seeds, scale=st.floats(0, 100), radius=st.floats(0, 10))
def test_projection_is_idempotent_and_its_result_is_in_the_ball(ball, seed, scale, radius):
    delta = noise(seed=seed, scale=scale)
    once = ball.project(delta, radius)
    assert (size(ball, once) <= radius * (1 + 1e-9)).all()
    torch.testing.assert_close(ball.project(once, radius), once, rtol=1e-9, atol=0)
    inside = size(ball, delta) <= radius
    assert torch.equal(once[inside], delta[inside])


@each_ball
@given(seed=seeds, radius=st.floats(0.1, 3))
def test_projection_finds_the_nearest_in_the_ball(ball, seed, radius):
    delta, others = noise(seed=seed, scale=3), ball.project(noise(seed=seed + 1), radius)
    nearest = ball.project(delta, radius)
    # The angle at the projection of a convex set is obtuse.
    assert (((delta - nearest) * (others - nearest)).flatten(1).sum(1) <= 1e-9).all()


@each_ball
@given(seed=seeds, exponent=st.integers(-35, 30))
def test_the_direction_is_the_steepest(ball, seed, exponent):
    gradient = noise(seed=seed).float() * 10.0**exponent
    direction = ball.direction(gradient)
    torch.testing.assert_close(size(ball, direction), torch.ones(6), rtol=1e-5, atol=0)
    dual = (gradient.double() / 10.0**exponent).flatten(1).norm(p=1 if ball == Linf() else 2, dim=1)
    gain = (gradient.double() / 10.0**exponent * direction).flatten(1).sum(1)
    torch.testing.assert_close(gain, dual, rtol=1e-5, atol=0)


@each_ball
def test_without_a_gradient_there_is_no_direction(ball):
    assert torch.equal(ball.direction(torch.zeros(2, *SHAPE)), torch.zeros(2, *SHAPE))


@each_ball
def test_starts_are_uniform_in_the_ball(ball):
    delta = ball.draw((4000, *SHAPE), stream(0))
    assert (size(ball, delta) <= 1 + 1e-6).all()
    # The fraction of the volume within the radius is uniform, and so is the direction.
    fractions = size(ball, delta).double().pow(math.prod(SHAPE)).sort().values
    assert (fractions - torch.linspace(0, 1, 4000)).abs().max() < 0.03
    assert delta.mean(0).abs().max() < 5 * delta.std() / math.sqrt(4000)


@each_attack
@given(
    seed=seeds,
    mean=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    std=st.lists(st.floats(0.05, 4), min_size=3, max_size=3),
)
def test_images_stay_in_the_ball_and_in_the_pixel_range(attack, seed, mean, std):
    images, labels = pictures(seed=seed), torch.arange(6) % 4
    normalization = Normalization(mean=mean, std=std)
    adversarial = attacked(
        attack, network(), images, labels, normalization=normalization, seed=seed
    )
    assert (size(attack.ball, adversarial - images) <= attack.epsilon / attack.scale + 1e-9).all()
    assert adversarial.min() >= -1e-9
    assert adversarial.max() <= 1 + 1e-9
    assert not torch.equal(adversarial, images)


@each_attack
def test_pixels_beyond_the_range_stay_in_the_ball_and_go_no_further(attack):
    images = 3 * pictures() - 1
    adversarial = attacked(attack, network(), images, torch.arange(6) % 4)
    assert (size(attack.ball, adversarial - images) <= attack.epsilon / attack.scale + 1e-9).all()
    assert (adversarial >= images.clamp(max=0) - 1e-9).all()
    assert (adversarial <= images.clamp(min=1) + 1e-9).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [1, 6])
def test_the_attack_equals_the_literal_form_of_pgd(norm, steps):
    attack = replace(PGD if norm == "linf" else PGD_L2, steps=steps)
    model, images, labels = network(), pictures(), torch.arange(6) % 4
    start = attack.draw(6, SHAPE, stream(3))
    adversarial = attacked(attack, model, images, labels, start=start)
    with eval_mode(model):
        expected = [
            references.projected_gradient(
                model,
                *row,
                NORMALIZATION.mean,
                NORMALIZATION.std,
                radius=torch.tensor(attack.epsilon / attack.scale, dtype=torch.float64),
                step=attack.step / attack.scale,
                steps=steps,
                norm=norm,
            )
            for row in zip(images, labels, start.double(), strict=True)
        ]
    torch.testing.assert_close(adversarial, torch.stack(expected), rtol=0, atol=1e-9)


def linear(seed, classes=2):
    """Logits w·x + b of unit pixels' normalised values."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(60, classes, dtype=torch.float64))


@pytest.mark.parametrize("attack", [FGS, replace(PGD, step=8), replace(PGD_L2, steps=30)])
@given(seed=seeds)
def test_two_linear_classes_lose_what_the_closed_form_says(attack, seed):
    """The margin falls by ε times the dual norm of its weights, where no pixel is cut."""
    with torch.random.fork_rng(devices=[]):
        model = linear(seed)
    labels = torch.arange(6) % 2
    radius = attack.epsilon / attack.scale
    images = radius + (1 - 2 * radius) * pictures(seed=seed)
    adversarial = attacked(attack, model, images, labels)

    def margin(images):
        return model(NORMALIZATION.normalize(images)) @ torch.tensor([1.0, -1.0]).double()

    weight = (model[1].weight[0] - model[1].weight[1]).view(SHAPE)
    std = torch.tensor(NORMALIZATION.std, dtype=torch.float64).view(-1, 1, 1)
    slope = (weight / std).flatten()
    largest = radius * slope.norm(p=1 if attack.ball == Linf() else 2)
    fallen = (margin(images) - margin(adversarial)) * torch.tensor([1, -1]).double().repeat(3)
    tolerance = 1e-9 if attack.ball == Linf() else 1e-2
    torch.testing.assert_close(fallen, largest.expand(6), rtol=tolerance, atol=0)


@given(seed=seeds)
def test_fgs_is_optimal_on_two_linear_classes_in_the_pixel_range_too(seed):
    with torch.random.fork_rng(devices=[]):
        model = linear(seed)
    images, labels = pictures(seed=seed), torch.arange(6) % 2
    loss = cross_entropy(model)

    def losses(images):
        return loss(NORMALIZATION.normalize(images), labels)

    best = losses(attacked(FGS, model, images, labels))
    assert (best >= losses(images) - 1e-12).all()
    for other in (attacked(PGD, model, images, labels), images + noise(scale=8 / 255).sign()):
        reach = (other - images).clamp(-8 / 255, 8 / 255)
        assert (losses((images + reach).clamp(0, 1)) <= best + 1e-9).all()


@each_attack
def test_untargeted_attacks_raise_the_loss_and_targeted_ones_lower_it(attack):
    model, images, labels = network(), pictures(), torch.arange(6) % 4
    adversarial = attacked(attack, model, images, labels)
    with eval_mode(model):
        before, after = (
            model(NORMALIZATION.normalize(x)).softmax(1).gather(1, labels[:, None])
            for x in (images, adversarial)
        )
    if attack.steps:
        assert ((after > before) if attack.targeted else (after < before)).all()


def test_an_ensemble_is_the_sum_of_its_networks():
    models = [network(seed).eval() for seed in range(3)]
    images, labels = pictures(), torch.arange(6) % 4
    each = [cross_entropy(model)(images, labels) for model in models]
    torch.testing.assert_close(cross_entropy(*models)(images, labels), sum(each))


@each_attack
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ball_of_radius_0_leaves_images_bit_identical(attack, dtype):
    images = NORMALIZATION.normalize(pictures(dtype=dtype))
    nothing, model = replace(attack, epsilon=0), network(dtype=dtype).eval()
    start = nothing.draw(6, SHAPE, stream(0))
    labels = torch.arange(6) % 4
    adversarial = nothing(
        cross_entropy(model), images, labels, normalization=NORMALIZATION, start=start
    )
    assert torch.equal(adversarial, images)


@each_attack
def test_only_the_generator_determines_the_start(attack):
    images, labels = pictures(), torch.arange(6) % 4
    first, same, other = (
        attacked(attack, network(), images, labels, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert torch.equal(first, other) != attack.random_start


@each_attack
def test_starts_are_the_same_whatever_torch_defaults_to(attack):
    expected = attack.draw(6, SHAPE, stream(1))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            start = attack.draw(6, SHAPE, stream(1))
    finally:
        torch.set_default_dtype(torch.float32)
    assert start.dtype == torch.float32
    assert torch.equal(start, expected)


@each_attack
@given(count=st.integers(0, 9), ranks=st.integers(1, 4))
def test_ranks_together_compute_the_images_of_one_process(attack, count, ranks):
    model, images, labels = network(), pictures(count), torch.arange(count) % 4
    whole = attacked(attack, model, images, labels)
    start, put_together = attack.draw(count, SHAPE, stream(0)), torch.full_like(images, torch.nan)
    for part in (slice(rank, None, ranks) for rank in range(ranks)):
        put_together[part] = attacked(attack, model, images[part], labels[part], start=start[part])
    torch.testing.assert_close(put_together, whole, rtol=0, atol=1e-9)


@each_attack
@pytest.mark.parametrize("grad", [True, False])
def test_network_images_and_grad_mode_are_unchanged(attack, grad):
    model = network()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    images, labels = pictures(), torch.arange(6) % 4
    kept, start = images.clone(), attack.draw(6, SHAPE, stream(0))
    drawn = start.clone()
    with torch.set_grad_enabled(grad):
        adversarial = attacked(attack, model, images, labels, start=start)
        assert torch.is_grad_enabled() == grad
    assert not adversarial.requires_grad
    assert torch.equal(images, kept)
    assert torch.equal(start, drawn)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_modes_are_restored_after_a_failure():
    model = network()
    with pytest.raises(RuntimeError, match="shape|size"):
        attacked(PGD, model, pictures(6)[..., :2], torch.zeros(6).long(), start=noise()[..., :2])
    assert all(module.training for module in model.modules())


@each_attack
def test_device_type_and_memory_format_are_those_of_the_images(attack):
    images = NORMALIZATION.normalize(pictures(dtype=torch.float32))
    images = images.to(memory_format=torch.channels_last)
    seen, model = [], network(dtype=torch.float32).eval()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    start = attack.draw(6, SHAPE, stream(0))
    adversarial = attack(
        cross_entropy(model),
        images,
        torch.zeros(6).long(),
        normalization=NORMALIZATION,
        start=start,
    )
    assert len(seen) == attack.steps
    for tensor in (*seen, adversarial):
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"scale": 1},
            "attack.epsilon is 8 on a scale of 0 to 1, where images are at most 1 apart: "
            "lower it, or state the scale it is on (attack.scale=255 for grey levels)",
        ),
        ({"epsilon": 256}, "attack.epsilon is 256 on a scale of 0 to 255"),
        (
            {"scale": 1, "epsilon": 0.5},
            "attack.step is 8 on a scale of 0 to 1, where images are at most 1 apart: "
            "lower it, or state the scale it is on (attack.scale=255 for grey levels)",
        ),
        ({"epsilon": -1}, "attack.epsilon is -1: give 0 or more, finite"),
        ({"epsilon": math.nan}, "attack.epsilon is nan: give 0 or more, finite"),
        ({"step": math.inf}, "attack.step is inf: give 0 or more, finite"),
        ({"step": -0.1}, "attack.step is -0.1: give 0 or more, finite"),
        ({"steps": -1}, "attack.steps is -1: give 0 or more, finite"),
        ({"scale": 0}, "attack.scale is 0: give the value of white, 1 or 255 for grey levels"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(FGS, **settings)


def call(attack, start):
    images, labels = NORMALIZATION.normalize(pictures()), torch.zeros(6).long()
    loss = cross_entropy(network().eval())
    return attack(loss, images, labels, normalization=NORMALIZATION, start=start)


@pytest.mark.parametrize("name", ["epsilon", "step"])
def test_a_euclidean_ball_is_held_against_the_size_of_the_images(name):
    attack = replace(PGD_L2, **{name: 8})
    with pytest.raises(
        ValueError, match=f"{name} is 8 on a scale of 0 to 1, .* most 7.74597 apart"
    ):
        call(attack, attack.draw(6, SHAPE, stream(0)))


def test_starts_of_other_images_are_refused():
    with pytest.raises(ValueError, match=r"shape \(6, 3, 4, 5\), but starts \(1, 3, 4, 5\): draw"):
        call(PGD, PGD.draw(1, SHAPE, stream(0)))


def test_inference_mode_is_refused_with_the_way_out():
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode=false"):
        call(PGD, PGD.draw(6, SHAPE, stream(0)))


@pytest.mark.parametrize("step", [1, 40])
def test_a_ball_of_white_holds_nothing_but_pixels(step):
    """The literal attack knows no ball (Dong et al., Eq 9-11)."""
    attack = replace(FGS, epsilon=255, step=step, steps=10, targeted=True)
    model, images, labels = network(), pictures(), torch.arange(6) % 4
    adversarial = attacked(attack, model, images, labels)
    with eval_mode(model):
        expected = [
            references.targeted_signs(
                model, *row, NORMALIZATION.mean, NORMALIZATION.std, step=step / 255, steps=10
            )
            for row in zip(images, labels, strict=True)
        ]
    torch.testing.assert_close(adversarial, torch.stack(expected), rtol=0, atol=1e-9)


def test_no_attack_is_none():
    assert no_attack() is None
