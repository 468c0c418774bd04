"""Erasing the directions of recovered triggers: what changes and what is refused."""

from dataclasses import replace

import pytest
import torch
from support.builders import image_data, small_mlp
from torch import nn

from cwx.data.corruption import Backdoor
from cwx.evaluations.verdict.cure import CureOutcome
from cwx.explanations.patterns import Patterns, Perturbations, Triggers
from cwx.functional.backdoor import AllToOne, Patch
from cwx.study.steps.erasure import Erasure
from cwx.training.plan import Plan


@pytest.fixture
def searched(subject):
    return torch.arange(len(subject.data.splits.test)) % 2 == 0


@pytest.fixture
def triggers(subject, searched):
    """Triggers that nearly cover the image, that of class 1 by a smaller mask."""
    classes, shape = len(subject.data.classes), subject.data.image_shape
    masks = torch.full((classes, *shape[1:]), 0.9)
    masks[1] = 0.8
    return Triggers(
        explains="expert",
        masks=masks,
        patterns=torch.rand(classes, *shape, generator=torch.Generator().manual_seed(1)),
        labels=torch.arange(classes),
        success=torch.ones(classes),
        required=torch.tensor(0.95),
        searched=searched,
    )


@pytest.fixture
def perturbations(subject, searched):
    """Two radii per class."""
    classes, shape = len(subject.data.classes), subject.data.image_shape
    generator = torch.Generator().manual_seed(2)
    radii = torch.tensor([0.1, 0.3]).repeat(classes)
    signs = torch.randn(2 * classes, *shape, generator=generator).sign()
    return Perturbations(
        explains="expert",
        deltas=radii[:, None, None, None] * signs,
        labels=torch.arange(classes).repeat_interleave(2),
        epsilons=radii,
        searched=~searched & (torch.arange(len(searched)) < len(searched) // 2),
    )


def erasure(**settings):
    chosen = {"sources": ["inversion"], "label": None, "strength": 1.0, "layer": None, "seed": 0}
    return Erasure(**{**chosen, **settings})


def mean_logits(subject, network, images):
    return network(subject.data.normalization.normalize(images)).double().mean(0)


def linear_layers(network):
    return [name for name, m in network.named_modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize(("strength", "left"), [(1.0, 0.0), (1.5, -0.5)])
def test_a_trigger_loses_its_mean_effect_on_the_logits(subject, triggers, strength, left):
    cure = erasure(strength=strength)(subject, {"inversion": triggers}, None, None)
    assert cure.label == 1
    assert list(cure.networks) == ["erased", "control"]
    test = subject.data.splits.test.at(triggers.searched)
    units = test.images[test.labels != 1].float() / 255

    def effect(network):
        triggered = mean_logits(subject, network, triggers.attach(1)(units))
        return triggered - mean_logits(subject, network, units)

    before = effect(subject.first_network("expert"))
    assert before.abs().max() > 0.1
    torch.testing.assert_close(effect(cure.cured), left * before, rtol=1e-3, atol=1e-4)
    # Directions without a trigger leave a part of it.
    control = effect(cure.networks["control"])
    assert (control - left * before).abs().max() > 0.1 * before.abs().max()
    assert not torch.allclose(control, before, rtol=1e-3)


def test_only_the_output_layer_changes_and_clean_images_keep_their_mean(subject, triggers):
    expert = subject.first_network("expert")
    cure = erasure()(subject, {"inversion": triggers}, None, None)
    last = linear_layers(expert)[-1]
    for network in cure.networks.values():
        for (name, before), after in zip(
            expert.state_dict().items(), network.state_dict().values(), strict=True
        ):
            assert torch.equal(before, after) == (not name.startswith(last)), name
        units = subject.data.splits.test.at(triggers.searched).images[:].float() / 255
        torch.testing.assert_close(
            mean_logits(subject, network, units),
            mean_logits(subject, expert, units),
            rtol=1e-3,
            atol=1e-4,
        )


def test_all_perturbations_of_the_class_are_erased_and_all_searched_images_used(
    subject, triggers, perturbations
):
    sources = {"inversion": triggers, "universal": perturbations}
    cure = erasure(sources=["universal", "inversion"], label=2)(subject, sources, None, None)
    assert torch.equal(cure.used, triggers.searched | perturbations.searched)
    test = subject.data.splits.test.at(cure.used)
    units = test.images[test.labels != 2].float() / 255
    # The first source is measured.
    torch.testing.assert_close(cure.attach(units), perturbations.attach(4)(units))
    clean = mean_logits(subject, cure.cured, units)
    for attach in (perturbations.attach(4), perturbations.attach(5), triggers.attach(2)):
        triggered = mean_logits(subject, cure.cured, attach(units))
        torch.testing.assert_close(triggered, clean, rtol=1e-3, atol=1e-3)


def test_the_class_that_the_verdict_suspects_is_chosen(subject, triggers):
    cure = erasure()(subject, {"inversion": triggers}, None, lambda: 2)
    assert cure.label == 2


def test_success_and_recovery_of_a_planted_backdoor_are_measured(subject, triggers):
    data = image_data()
    patch = Patch(size=2, corner="top-right", margin=0, first_pixel="white")
    data.corrupt(Backdoor(trigger=patch, target="right", rate=0.1, variant=AllToOne(), seed=0))
    planted = replace(subject, data=data)
    cured = replace(planted, cure=erasure()(planted, {"inversion": triggers}, None, None))
    outcome = CureOutcome()(cured, {})
    network, target = subject.first_network("expert"), data.classes.index("right")
    unused = data.splits.test.at(~triggers.searched)
    others = unused.labels != target
    attacked = patch.apply(unused.images[others])
    predicted = network(data.normalization.from_bytes(attacked)).argmax(1)
    clean = network(data.normalization.from_bytes(unused.images[:])).argmax(1)
    not_1 = unused.labels != 1
    expected = {
        "attack": (predicted == target),
        "restored": (predicted == unused.labels[others]),
        "without": (clean[not_1] == 1),
    }
    for name, hits in expected.items():
        assert outcome.metrics[f"cure/before/{name}"] == pytest.approx(float(hits.double().mean()))


def test_sources_and_layers_that_cannot_be_erased_are_refused(subject, triggers, perturbations):
    plan = Plan(data=image_data(), methods=[], held_out=0, networks={"network": small_mlp})
    with pytest.raises(ValueError, match="cure.sources names 'inversion', which is no method"):
        erasure().check(plan)
    leaves = {"inversion": Triggers, "universal": Perturbations, "iscp": Patterns}
    known = replace(plan, leaves=leaves)
    erasure().check(known)
    erasure(sources=["universal"], label="right").check(known)
    with pytest.raises(
        ValueError, match=r"cure\.sources is 'universal'.*universal\.searched=1 uses"
    ):
        erasure(sources=["inversion", "universal"]).check(
            replace(known, searched={"inversion": 0.5, "universal": 1.0})
        )
    with pytest.raises(ValueError, match="cure.sources names 'iscp', which is no method"):
        erasure(sources=["inversion", "iscp"]).check(known)
    with pytest.raises(ValueError, match="set method.universal.explains to expert"):
        erasure(sources=["universal"]).check(replace(known, explains={"universal": "clean"}))
    with pytest.raises(ValueError, match="name the class, or add trigger_inversion"):
        erasure(sources=["universal"]).check(known)
    with pytest.raises(ValueError, match="cure.label"):
        erasure(label="sideways").check(known)
    with pytest.raises(ValueError, match="has none: choose cure=unlearn"):
        erasure().check(replace(known, networks={"network": without_bias}))
    first = linear_layers(subject.first_network("expert"))[0]
    with pytest.raises(ValueError, match="are not those of its linear layer"):
        erasure(layer=first)(subject, {"inversion": triggers}, None, None)
    missing = replace(triggers, labels=triggers.labels.clamp(max=1))
    with pytest.raises(ValueError, match="has not searched it: add the class to method.inversion"):
        erasure(label=2)(subject, {"inversion": missing}, None, None)


def without_bias(**settings):
    network = small_mlp(**settings)
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    linear.register_parameter("bias", None)
    return network
