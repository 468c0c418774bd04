"""Trigger inversion: gradients against autograd on one search, the controller, the best state."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cwx.functional.images import Normalization
from cwx.functional.trigger_inversion import (
    adapt_weights,
    effective_sizes,
    inversion_gradients,
    learning_rate_factor,
    masks_and_patterns,
    noise_scale,
    precedes,
    stamp,
    success_rates,
    trigger_keys,
)

NORMALIZATION = Normalization(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
SEARCHES, IMAGES, CLASSES = 4, 3, 5


def problem(dtype=torch.float64):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, CLASSES))
    return {
        "network": network.to(dtype).requires_grad_(False),
        "logits": torch.randn(SEARCHES, 4, 6, 6, dtype=dtype),
        "images": torch.rand(SEARCHES, IMAGES, 3, 6, 6, dtype=dtype),
        "labels": torch.tensor([0, 1, 4, 1]),
        "weights": torch.tensor([[1.0, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]).to(dtype),
        "size_weights": torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=dtype),
    }


def literal_loss(network, logits, images, label, weights, size_weight, noise):
    """The loss of one search, image by image."""
    entropy = 0
    for image, weight, disturbance in zip(images, weights, noise, strict=True):
        disturbed = torch.sigmoid(logits + disturbance)
        mask, pattern = disturbed[0], disturbed[1:]
        mixed = (1 - mask) * image + mask * pattern
        output = network(NORMALIZATION.normalize(mixed[None]))
        entropy = entropy + weight * F.cross_entropy(output, label[None])
    return entropy / weights.sum() + size_weight * torch.sigmoid(logits[0]).mean()


@pytest.mark.parametrize("noisy", [False, True])
def test_gradients_equal_those_of_single_searches(noisy):
    parts = problem()
    noise = torch.randn(SEARCHES, IMAGES, 4, 6, 6, dtype=torch.float64) if noisy else None
    gradients, losses, _ = inversion_gradients(**parts, noise=noise, normalization=NORMALIZATION)
    noise = torch.zeros(SEARCHES, IMAGES, 4, 6, 6) if noise is None else noise
    for i in range(SEARCHES):
        leaf = parts["logits"][i].clone().requires_grad_()
        loss = literal_loss(
            parts["network"], leaf, parts["images"][i], parts["labels"][i], parts["weights"][i],
            parts["size_weights"][i], noise[i],
        )  # fmt: skip
        (expected,) = torch.autograd.grad(loss, leaf)
        torch.testing.assert_close(gradients[i], expected)
        torch.testing.assert_close(losses[i], (loss * parts["weights"][i].sum()).detach())


def test_success_counts_the_images_of_other_classes():
    parts = problem()
    images, own = torch.rand(11, 3, 6, 6).double(), torch.arange(11) % CLASSES
    rates = success_rates(
        parts["network"], parts["logits"], images, own, parts["labels"],
        normalization=NORMALIZATION, batch_size=4,
    )  # fmt: skip
    masks, patterns = masks_and_patterns(parts["logits"])
    for i, label in enumerate(parts["labels"].tolist()):
        others = images[own != label]
        stamped = stamp(others[None], masks[i : i + 1], patterns[i : i + 1])[0]
        outputs = parts["network"](NORMALIZATION.normalize(stamped))
        assert rates[i] == pytest.approx((outputs.argmax(1) == label).double().mean().item())


def test_an_opaque_mask_replaces_the_image_and_a_transparent_one_keeps_it():
    images = torch.rand(2, 3, 1, 4, 4)
    pattern = torch.rand(2, 1, 4, 4)
    opaque = stamp(images, torch.ones(2, 4, 4), pattern)
    torch.testing.assert_close(opaque, pattern[:, None].expand_as(opaque))
    torch.testing.assert_close(stamp(images, torch.zeros(2, 4, 4), pattern), images)


def test_the_weight_is_in_equilibrium_if_four_of_five_batches_succeed():
    weights = torch.full((2,), 0.7)
    for hit in (True, True, False, True, True):
        adapt_weights(weights, torch.tensor([hit, True]), 1.5, (0.1, 100.0))
    torch.testing.assert_close(weights, torch.tensor([0.7, 0.7 * 1.5**5]))
    adapt_weights(weights, torch.tensor([False, False]), 100.0, (0.1, 1.0))
    torch.testing.assert_close(weights, torch.tensor([0.1, 0.1]))


def test_noise_ends_at_half_time_and_the_learning_rate_at_its_last_value():
    assert noise_scale(0, 100, 2.0) == 2.0
    assert noise_scale(25, 100, 2.0) == 1.0
    assert noise_scale(50, 100, 2.0) == noise_scale(99, 100, 2.0) == 0
    assert learning_rate_factor(0, 100, 0.1) == 1
    assert learning_rate_factor(100, 100, 0.1) == pytest.approx(0.1)


def test_a_mask_that_reaches_the_success_has_its_own_size():
    sizes, rates = torch.tensor([3.0, 5.0, 7.0]), torch.tensor([0.95, 0.99, 1.0])
    torch.testing.assert_close(effective_sizes(sizes, rates, 0.95, 64), sizes)


def test_a_lower_success_counts_by_its_odds_and_never_beyond_the_image():
    sizes, rates = torch.full((4,), 3.0), torch.tensor([0.9, 0.5, 0.0, 0.949])
    effective = effective_sizes(sizes, rates, 0.95, 64)
    torch.testing.assert_close(effective[:3], torch.tensor([3 * 19 / 9, 3 * 19.0, 64.0]))
    # Almost reached is almost as good.
    assert 3 < effective[3] < 3.1


def test_a_required_success_of_one_is_finite():
    assert effective_sizes(torch.ones(1), torch.ones(1), 1.0, 64).item() == 1
    assert effective_sizes(torch.ones(1), torch.tensor([0.9]), 1.0, 64).item() == 64


KEYS = st.lists(st.tuples(*3 * [st.integers(0, 2)]), min_size=1, max_size=9)


@given(st.data(), KEYS)
def test_keys_are_compared_as_tuples(data, own):
    other = data.draw(st.permutations(own))
    effective, rates, sizes = (torch.tensor(column).double() for column in zip(*own, strict=True))
    others = [torch.tensor(column).double() for column in zip(*other, strict=True)]
    below = precedes(trigger_keys(effective, rates, sizes), trigger_keys(*others))
    expected = [(a[0], -a[1], a[2]) < (b[0], -b[1], b[2]) for a, b in zip(own, other, strict=True)]
    assert below.tolist() == expected
