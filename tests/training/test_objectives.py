"""What training minimises, against straightforward loops."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from support import references
from support.builders import small_mlp
from torch import nn
from torch.nn import functional as F

from cwx.data.batches import Batch
from cwx.functional.attack_targets import others, shifts
from cwx.functional.attacks import Attack, Linf
from cwx.functional.rng import stream
from cwx.methods.consistency import ConsistencyObjective
from cwx.training.build import build_network
from cwx.training.objectives import START, TARGETS, CrossEntropy, Step, perturb

PGD = Attack(
    ball=Linf(), epsilon=60, scale=255, step=15, steps=7, random_start=True, targeted=False
)
TARGETED = replace(PGD, epsilon=255, step=9, steps=4, random_start=False, targeted=True)
STEP = Step(seed=3, number=5, total=7, rank=0, ranks=1)


class Net(nn.Module):
    """Features of several places, changed in place before they are pooled."""

    def __init__(self, *, in_channels, num_classes, norm, **_):
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(in_channels, 5, 3, padding=1), norm(5))
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(5, num_classes)

    def forward(self, images):
        return self.head(self.act(self.maps(images)).mean((2, 3)))


def group_norm(channels):
    return nn.GroupNorm(1, channels)


def net(data, norm=group_norm):
    network = build_network(partial(Net, norm=norm), data, seed=0).double()
    assert all(module.training for module in network.modules())
    return network


def whole_batch(data):
    train = data.splits.train.at(torch.arange(0, 60, 9))
    assert len(train) == STEP.total
    return Batch(data.normalization.from_bytes(train.images).double(), train.labels, len(train))


def consistent(network, data, **settings):
    chosen = {"attack": TARGETED, "alpha": 0.3, "beta": 0.2, "layer": "maps", **settings}
    return ConsistencyObjective(network=network, data=data, **chosen)


def gradients(network, loss):
    return torch.autograd.grad(loss, list(network.parameters()))


def adversarial(network, batch, data):
    """G of each image by the literal attack, towards the targets that the step draws."""
    targets = others(batch.labels, shifts(batch.total, 3, STEP.stream(TARGETS)), 3)
    assert not (targets == batch.labels).any()
    network.eval()
    found = [
        references.targeted_signs(
            network, image, target, data.normalization.mean, data.normalization.std,
            step=TARGETED.step / TARGETED.scale, steps=TARGETED.steps,
        )
        for image, target in zip(
            data.normalization.denormalize(batch.images), targets, strict=True
        )
    ]  # fmt: skip
    network.train()
    return data.normalization.normalize(torch.stack(found))


@pytest.mark.parametrize("norm", [group_norm, nn.BatchNorm2d])
def test_without_beta_the_loss_is_that_of_adversarial_training(data, norm, monkeypatch):
    """The same loss and gradients as with a weightless distance, without reading features."""
    network, batch = net(data, norm), whole_batch(data)
    # A weight that vanishes in the sum, and is not 0.
    tiny = consistent(network, data, beta=1e-300)(network, batch, STEP)
    expected = gradients(network, tiny)
    monkeypatch.setattr("cwx.methods.consistency.unit_outputs", None)
    # Another with the same weights, whose running statistics no step has changed.
    network = net(data, norm)
    loss = consistent(network, data, beta=0)(network, batch, STEP)
    assert loss.item() == tiny.item()
    for gradient, other in zip(gradients(network, loss), expected, strict=True):
        assert torch.equal(gradient, other)


@pytest.mark.parametrize("norm", [group_norm, nn.BatchNorm2d])
def test_the_consistency_loss_equals_a_plain_loop_over_images(data, norm):
    """Attack in eval mode, then one batch of both, every term on its own."""
    network, batch = net(data, norm), whole_batch(data)
    attacked = adversarial(network, batch, data)
    assert (attacked - batch.images).abs().amax((1, 2, 3)).min() > 0.1
    found = consistent(network, data)(network, batch, STEP)
    slopes = gradients(network, found)
    features = network.maps(torch.cat([batch.images, attacked]))
    logits = network.head(features.relu().mean((2, 3)))
    expected = (
        0.3 * F.cross_entropy(logits[:7], batch.labels, reduction="sum")
        + 0.7 * F.cross_entropy(logits[7:], batch.labels, reduction="sum")
        + 0.2 * (features[:7] - features[7:]).square().sum()
    )
    torch.testing.assert_close(found, expected)
    for a, b in zip(slopes, gradients(network, expected), strict=True):
        torch.testing.assert_close(a, b)


def test_batch_norm_uses_clean_and_adversarial_images_but_not_the_attack(data):
    network, batch = net(data, nn.BatchNorm2d), whole_batch(data)
    both = network.maps[0](torch.cat([batch.images, adversarial(network, batch, data)]))
    consistent(network, data)(network, batch, STEP)
    assert network.maps[1].num_batches_tracked == 1
    torch.testing.assert_close(network.maps[1].running_mean, 0.1 * both.mean((0, 2, 3)))


def test_gradients_flow_through_both_features_but_not_the_attack(data):
    network, batch = net(data), whole_batch(data)
    images = batch.images.requires_grad_()
    targets = (batch.labels + 1) % 3
    attacked = perturb(network, TARGETED, batch, targets, STEP, data)
    assert not attacked.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    loss = consistent(network, data, alpha=1.0, beta=1.0)(network, batch, STEP)
    # Of x, and not of G(x): the features of x alone are pulled by it.
    (slope,) = torch.autograd.grad(loss, images, retain_graph=True)
    x, moved = network.maps(images), network.maps(adversarial(network, batch, data)).detach()
    entropy = F.cross_entropy(network(images), batch.labels, reduction="sum")
    (expected,) = torch.autograd.grad(entropy + (x - moved).square().sum(), images)
    torch.testing.assert_close(slope, expected)
    # Parameters are pulled by both: alone, the features of x would be pulled elsewhere.
    x, moved = network.maps(images), network.maps(adversarial(network, batch, data)).detach()
    entropy = F.cross_entropy(network(images), batch.labels, reduction="sum")
    half = gradients(network, entropy + (x - moved).square().sum())
    assert (gradients(network, loss)[0] - half[0]).norm() > 0.1 * half[0].norm()


@pytest.mark.parametrize("layer", [None, "maps", "maps.0", "act", "head"])
def test_features_are_outputs_of_the_named_layer(data, layer):
    network, batch = net(data), whole_batch(data)
    found, without = (
        consistent(network, data, beta=beta, layer=layer)(network, batch, STEP)
        for beta in (1.0, 0.0)
    )
    x, moved = batch.images, adversarial(network, batch, data)
    parts = {
        "maps.0": network.maps[0],
        "maps": network.maps,
        "act": lambda images: network.maps(images).relu(),
        "head": network,
    }
    part = parts[layer or "act"]
    torch.testing.assert_close(found - without, (part(x) - part(moved)).square().sum())


def fractions(batch, ranks):
    """What each of several ranks has of a batch and its step."""
    for rank in range(ranks):
        part = slice(rank, None, ranks)
        mine = Batch(batch.images[part], batch.labels[part], batch.total)
        yield part, mine, replace(STEP, rank=rank, ranks=ranks)


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("attack", [TARGETED, replace(TARGETED, random_start=True)])
def test_the_losses_of_ranks_sum_to_the_loss_of_one_process(data, ranks, attack):
    """With more ranks than images, some have none."""
    network, batch = net(data), whole_batch(data)
    objective = consistent(network, data, attack=attack)
    loss = objective(network, batch, STEP)
    losses = [objective(network, mine, step) for _, mine, step in fractions(batch, ranks)]
    torch.testing.assert_close(sum(losses), loss)
    for a, b in zip(gradients(network, sum(losses)), gradients(network, loss), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_make_the_adversarial_images_of_one_process(data, ranks):
    network, batch = net(data), whole_batch(data)
    whole = perturb(network, PGD, batch, batch.labels, STEP, data)
    put_together = torch.full_like(whole, torch.nan)
    for part, mine, step in fractions(batch, ranks):
        put_together[part] = perturb(network, PGD, mine, mine.labels, step, data)
    torch.testing.assert_close(put_together, whole, rtol=0, atol=1e-9)


def test_starts_come_from_the_stream_of_the_step(data):
    network, batch = net(data), whole_batch(data)
    found = perturb(network, replace(PGD, steps=0), batch, batch.labels, STEP, data)
    start = PGD.draw(7, data.image_shape, stream(STEP.seed, STEP.number, START))
    moved = data.normalization.denormalize(batch.images) + start
    torch.testing.assert_close(
        data.normalization.denormalize(found), moved.clamp(0, 1), rtol=0, atol=1e-6
    )


def test_a_failed_attack_restores_the_training_mode(data):
    network, batch = net(data), whole_batch(data)
    with pytest.raises((IndexError, ValueError)):
        perturb(network, PGD, batch, batch.labels[:2], STEP, data)
    assert all(module.training for module in network.modules())


def test_cross_entropy_uses_only_adversarial_images(data):
    network, batch = net(data), whole_batch(data)
    attacked = perturb(network, PGD, batch, batch.labels, STEP, data)
    for attack, images in ((None, batch.images), (PGD, attacked)):
        found = CrossEntropy(network=network, data=data, attack=attack)(network, batch, STEP)
        expected = F.cross_entropy(network(images), batch.labels, reduction="sum")
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.5}, "recipe.alpha is 1.5: give a weight in 0-1"),
        ({"alpha": math.nan}, "recipe.alpha is nan: give"),
        ({"beta": -0.1}, "recipe.beta is -0.1: give 0 or more, finite"),
        ({"beta": math.inf}, "recipe.beta is inf: give"),
        ({"attack": None}, "recipe.attack is none, .* attack@recipe.attack=targeted_fgs"),
        ({"attack": PGD}, "recipe.attack is not targeted, .* recipe.attack.targeted to true"),
        ({"layer": "map"}, "recipe.layer is 'map', .* give one such as maps"),
    ],
)
def test_settings_out_of_range_are_refused(data, settings, message):
    with pytest.raises(ValueError, match=message):
        consistent(net(data), data, **settings)


def test_a_single_class_is_refused(data, monkeypatch):
    network = net(data)
    monkeypatch.setattr(type(data), "classes", ("only",))
    with pytest.raises(
        ValueError, match="the number of classes is 1: give data of 2 classes or more"
    ):
        consistent(network, data)


def test_a_network_without_maps_needs_the_setting_layer(data):
    network = build_network(small_mlp, data, seed=0)
    with pytest.raises(ValueError, match="no layer of MLP gives maps .* set recipe.la"):
        consistent(network, data, layer=None)


def test_cross_entropy_refuses_a_targeted_attack(data):
    with pytest.raises(ValueError, match="set recipe.attack.targeted to false"):
        CrossEntropy(network=net(data), data=data, attack=TARGETED)
