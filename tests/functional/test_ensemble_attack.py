"""The attack on several networks: its literal form, its laws, and what it refuses."""

import math
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import references
from torch import nn

from cwx.functional.ensemble_attack import EnsembleAttack, average_probabilities
from cwx.functional.images import Normalization
from cwx.functional.rng import stream

SHAPE = (3, 4, 5)
NORMALIZATION = Normalization(mean=(0.5, 0.4, 0.45), std=(0.25, 0.2, 0.5))
PAPER = EnsembleAttack(weight=0.01, scale=255, step=5, steps=20, epsilon=None)
# From grey levels of 0-255 to another unit: λ falls per unit, the step rises.
ATTACKS = {
    "paper": PAPER,
    "one step": replace(PAPER, steps=1),
    "strong": replace(PAPER, weight=3),
    "unit": EnsembleAttack(weight=2.0, scale=1, step=0.02, steps=7, epsilon=None),
    "bounded": replace(PAPER, weight=0, epsilon=8),
    "bounded with a distance": replace(PAPER, epsilon=20),
}
TARGETS = torch.arange(6) % 4

each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))


def pictures(count=6, seed=0, dtype=torch.float64):
    """Unit images, some of whose pixels are black or white."""
    images = torch.rand(count, *SHAPE, dtype=dtype, generator=stream(seed))
    return (1.4 * images - 0.2).clamp(0, 1)


def network(seed=0, dtype=torch.float64, classes=4):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, 6, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(120, classes)
        # Steep, as trained networks are.
        nn.init.normal_(layers[-1].weight)
        return nn.Sequential(*layers).to(dtype)


def members(count=3, dtype=torch.float64):
    return [network(seed, dtype) for seed in range(count)]


def attacked(attack, networks, images, targets=TARGETS, normalization=NORMALIZATION):
    """The attacked unit images."""
    given = normalization.normalize(images)
    adversarial = attack(networks, given, targets[: len(images)], normalization=normalization)
    return normalization.denormalize(adversarial)


@each_attack
@pytest.mark.parametrize("count", [1, 3])
def test_the_attack_equals_adam_on_the_literal_objective(attack, count):
    networks, images = members(count), pictures()
    adversarial = attacked(attack, networks, images)
    expected = [
        references.ensemble_attack(
            networks,
            image,
            target,
            NORMALIZATION.mean,
            NORMALIZATION.std,
            weight=attack.weight,
            scale=attack.scale,
            step=attack.step,
            steps=attack.steps,
            epsilon=attack.epsilon,
        )
        for image, target in zip(images, TARGETS, strict=True)
    ]
    torch.testing.assert_close(adversarial, torch.stack(expected), rtol=0, atol=1e-8)
    assert (adversarial - images).abs().max() > 0.001


@each_attack
@given(order=st.permutations(range(6)), kept=st.integers(1, 6))
def test_an_image_does_not_depend_on_its_neighbours(attack, order, kept):
    networks, images = members(2), pictures()
    chosen = torch.tensor(order[:kept])
    whole = attacked(replace(attack, steps=3), networks, images)
    part = attacked(replace(attack, steps=3), networks, images[chosen], TARGETS[chosen])
    torch.testing.assert_close(part, whole[chosen], rtol=0, atol=1e-9)


@given(
    seed=st.integers(0, 2**32),
    step=st.floats(0, 255),
    weight=st.floats(0, 100),
    mean=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    std=st.lists(st.floats(0.05, 4), min_size=3, max_size=3),
)
def test_pixels_stay_in_the_range(seed, step, weight, mean, std):
    attack = replace(PAPER, step=step, weight=weight, steps=4)
    normalization = Normalization(mean=mean, std=std)
    adversarial = attacked(attack, members(1), pictures(seed=seed), normalization=normalization)
    assert adversarial.min() >= -1e-9
    assert adversarial.max() <= 1 + 1e-9


@pytest.mark.parametrize(
    ("scale", "epsilon", "levels"),
    [(255, 1, 1), (255, 8, 8), (255, 8.5, 8), (255, 8.999, 8), (1, 8 / 255, 8), (1, 0.05, 12)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_byte_changes_by_more_than_the_bound(scale, epsilon, levels, dtype):
    start = (255 * pictures()).round().to(torch.uint8)
    images = NORMALIZATION.from_bytes(start).to(dtype)
    attack = EnsembleAttack(weight=0, scale=scale, step=scale / 50, steps=20, epsilon=epsilon)
    adversarial = attack(members(2, dtype), images, TARGETS, normalization=NORMALIZATION)
    change = NORMALIZATION.denormalize(adversarial) - NORMALIZATION.denormalize(images)
    assert float(change.abs().max()) == pytest.approx(epsilon / scale, rel=1e-4)
    rounded = attack.to_bytes(adversarial, images, normalization=NORMALIZATION)
    assert rounded.dtype == torch.uint8
    assert (rounded.int() - start.int()).abs().max() == levels
    # Without a bound, rounding is that of all images.
    free = replace(attack, epsilon=None)
    assert torch.equal(
        free.to_bytes(adversarial, images, normalization=NORMALIZATION),
        NORMALIZATION.to_bytes(adversarial),
    )


def test_a_bound_of_the_whole_range_changes_nothing():
    networks, images = members(2), pictures()
    free = attacked(PAPER, networks, images)
    assert torch.equal(attacked(replace(PAPER, epsilon=255), networks, images), free)


def test_pixels_beyond_the_range_may_come_back_and_go_no_further():
    images = 3 * pictures() - 1
    adversarial = attacked(PAPER, members(1), images)
    assert (adversarial >= images.clamp(max=0) - 1e-9).all()
    assert (adversarial <= images.clamp(min=1) + 1e-9).all()
    assert not torch.equal(adversarial, images)


def test_a_larger_weight_gives_smaller_distances_and_weight_0_reaches_the_target():
    networks, images = members(), pictures()
    adversarial = [attacked(replace(PAPER, weight=w), networks, images) for w in (0, 0.02, 0.2)]
    distances = [(batch - images).flatten(1).norm(dim=1) for batch in adversarial]
    assert (distances[0] > distances[1]).all()
    assert (distances[1] > distances[2]).all()
    for member in networks:
        reached = member(NORMALIZATION.normalize(adversarial[0])).argmax(1)
        assert torch.equal(reached, TARGETS)


class Flat(nn.Module):
    """Gives the same logits for all images, and so no slope."""

    def forward(self, images):
        return 0 * images.flatten(1)[:, :4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_gradient_images_do_not_change(dtype):
    """At x* = x the norm pulls nowhere, and makes no NaN."""
    images = NORMALIZATION.normalize(pictures(dtype=dtype))
    for attack, networks in ((PAPER, [Flat()]), (replace(PAPER, steps=0), members(1, dtype))):
        assert torch.equal(attack(networks, images, TARGETS, normalization=NORMALIZATION), images)


@each_attack
def test_the_distance_is_on_the_scale_and_not_squared(attack):
    images, others = pictures(), pictures(seed=1)
    adversarial = attack.distance(
        NORMALIZATION.normalize(images),
        NORMALIZATION.normalize(others),
        normalization=NORMALIZATION,
    )
    for one, other, distance in zip(images, others, adversarial, strict=True):
        pairs = zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)
        assert float(distance) == pytest.approx(
            math.dist(*zip(*[(attack.scale * a, attack.scale * b) for a, b in pairs], strict=True))
        )


def test_probabilities_of_members_are_averaged():
    networks, images = members(), NORMALIZATION.normalize(pictures())
    adversarial = average_probabilities(networks, images)
    assert not adversarial.requires_grad
    expected = sum(member(images).softmax(1) for member in networks) / 3
    torch.testing.assert_close(adversarial, expected)
    torch.testing.assert_close(adversarial.sum(1), torch.ones(6).double())


@pytest.mark.parametrize("grad", [True, False])
def test_networks_images_and_grad_mode_are_unchanged(grad):
    networks, images = members(2), NORMALIZATION.normalize(pictures())
    kept = images.clone()
    before = [p.clone() for member in networks for p in member.parameters()]
    with torch.set_grad_enabled(grad):
        adversarial = PAPER(networks, images, TARGETS, normalization=NORMALIZATION)
        assert torch.is_grad_enabled() == grad
    assert not adversarial.requires_grad
    assert torch.equal(images, kept)
    parameters = [p for member in networks for p in member.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
    assert all(p.grad is None and p.requires_grad for p in parameters)


def test_type_and_memory_format_are_those_of_the_images():
    seen, member = [], network(dtype=torch.float32)
    member.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = NORMALIZATION.normalize(pictures(dtype=torch.float32))
    images = images.to(memory_format=torch.channels_last)
    adversarial = replace(PAPER, steps=3)([member], images, TARGETS, normalization=NORMALIZATION)
    assert len(seen) == 3
    for tensor in (*seen, adversarial):
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_members_with_different_numbers_of_classes_are_refused():
    networks = [*members(2), network(classes=5)]
    images = NORMALIZATION.normalize(pictures())
    message = (
        "the first member of the ensemble gives logits of shape (6, 4), and member 3 of shape "
        "(6, 5) for the same images: choose adversary.members with the same classes"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        PAPER(networks, images, TARGETS, normalization=NORMALIZATION)
    with pytest.raises(ValueError, match=re.escape(message)):
        average_probabilities(networks, images)


def test_inference_mode_is_refused_with_the_way_out():
    images = torch.zeros(6, *SHAPE)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode=false"):
        PAPER(members(1), images, TARGETS, normalization=NORMALIZATION)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"scale": 1},
            "adversary.step is 5 on a scale of 0 to 1, where pixels are at most 1 apart: lower it, "
            "or state the scale it is on (adversary.scale=255 for grey levels)",
        ),
        ({"step": 256}, "adversary.step is 256 on a scale of 0 to 255"),
        ({"step": -1}, "adversary.step is -1: give 0 or more, finite"),
        ({"step": math.nan}, "adversary.step is nan: give 0 or more, finite"),
        ({"steps": -1}, "adversary.steps is -1: give 0 or more, finite"),
        ({"weight": -0.1}, "adversary.weight is -0.1: give 0 or more, finite"),
        ({"weight": math.inf}, "adversary.weight is inf: give 0 or more, finite"),
        (
            {"epsilon": 0.03},
            "adversary.epsilon is 0.03 on a scale of 0 to 255, less than one grey level, so that "
            "images in bytes could not change: give 1 or more, or state the scale it is on "
            "(adversary.scale=255 for grey levels, 1 for 0-1)",
        ),
        (
            {"scale": 1, "step": 0.02, "epsilon": 8},
            "adversary.epsilon is 8 on a scale of 0 to 1, where pixels are at most 1 apart: lower "
            "it, give null for no bound, or state the scale it is on",
        ),
        ({"scale": 1, "step": 0.02, "epsilon": 0.003}, "give 0.00392 or more, or state the scale"),
        ({"epsilon": 0}, "adversary.epsilon is 0 on a scale of 0 to 255, less than one grey level"),
        ({"epsilon": math.nan}, "adversary.epsilon is nan on a scale of 0 to 255, where pixels"),
        ({"scale": 0}, "adversary.scale is 0: give the value of white, 255 for grey levels or 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(PAPER, **settings)
