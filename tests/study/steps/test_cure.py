"""The removal of a trigger: what is unlearned or pruned, and what is measured."""

from dataclasses import replace

import pytest
import torch
from support import builders
from support.builders import experts, image_data, small_mlp

from cwx.evaluations.verdict.cure import CureOutcome
from cwx.evaluations.verdict.evaluation import Verdict
from cwx.evaluations.verdict.statistics import TriggerSize
from cwx.explanations.patterns import Triggers
from cwx.study.steps.cure import NoCure, Pruning, Unlearning
from cwx.study.steps.recovered_trigger import suspected_class
from cwx.training.plan import Plan


def recipe(*, networks, data, seeds, **_):
    return experts(data, seeds, networks=networks, epochs=2)


@pytest.fixture
def triggers(subject):
    classes, shape = len(subject.data.classes), subject.data.image_shape
    masks = torch.full((classes, *shape[1:]), 0.01)
    masks[:, 0] = torch.tensor([0.9, 0.4, 0.9])[:classes, None]
    return Triggers(
        explains="expert",
        masks=masks,
        patterns=torch.ones(classes, *shape),
        labels=torch.arange(classes),
        success=torch.ones(classes),
        required=torch.tensor(0.95),
        searched=torch.arange(len(subject.data.splits.test)) % 2 == 0,
    )


def unlearning(**settings):
    chosen = {"source": "inversion", "label": None, "fraction": 0.5, "recipe": recipe, "seed": 0}
    return Unlearning(**{**chosen, **settings})


def training(store):
    configuration = {
        "cure": {"recipe": {"epochs": 2}}, "network": {}, "recipe": {},
        "precision": {"experts": {}},
    }  # fmt: skip
    return builders.training(store, configuration, recipe=recipe)


@pytest.fixture
def cured(subject, triggers, tmp_path):
    cure = unlearning()(subject, {"inversion": triggers}, training(tmp_path), None)
    return replace(subject, cure=cure)


def test_the_smallest_trigger_is_unlearned_on_the_images_of_its_search(cured, triggers):
    assert cured.cure.label == 1
    assert torch.equal(cured.cure.used, triggers.searched)
    assert set(cured.cure.networks) == {"unlearned", "control"}
    states = [network.state_dict() for network in cured.cure.networks.values()]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_class_that_the_verdict_suspects_is_chosen(subject, triggers, tmp_path):
    usual = -triggers.sizes.double().log()
    usual[2] -= 1
    bank = replace(subject.bank, statistics={"inversion/size": usual.expand(19, -1)})
    with_bank, sources = replace(subject, bank=bank), {"inversion": triggers}
    limits = {"alpha": 0.05, "accuracy_drop": 0.1, "least_images": 10, "images": 20}
    evaluations = {
        "cure": CureOutcome(),
        "verdict": Verdict(statistics={"size": TriggerSize(source="inversion")}, **limits),
    }
    suspected = suspected_class(evaluations, with_bank, sources)
    cure = unlearning()(with_bank, sources, training(tmp_path), suspected)
    assert cure.label == 2
    assert suspected_class({"cure": CureOutcome()}, with_bank, sources) is None


def test_a_class_without_a_trigger_is_refused_with_the_remedy(subject, triggers, tmp_path):
    without = replace(triggers, labels=triggers.labels.clamp(max=1))
    for step, suspected in ((unlearning(), lambda: 2), (unlearning(label=2), None)):
        with pytest.raises(
            ValueError, match="has not searched it: add the class to method.inversion"
        ):
            step(subject, {"inversion": without}, training(tmp_path), suspected)


def test_the_training_images_keep_their_labels_and_a_part_carries_the_trigger(
    subject, triggers, tmp_path
):
    seen = []

    def watching(*, data, **settings):
        seen.append(data.splits.train)
        return recipe(data=data, **settings)

    step = unlearning(label=0, recipe=watching)
    step(subject, {"inversion": triggers}, training(tmp_path), None)
    stamped, clean = seen
    test = subject.data.splits.test.at(triggers.searched)
    assert torch.equal(clean.images, test.images)
    assert torch.equal(stamped.labels, test.labels)
    changed = (stamped.images != test.images).flatten(1).any(1)
    assert int(changed.sum()) == round(0.5 * len(test))


def test_images_of_the_search_are_not_measured(cured, triggers):
    outcome = CureOutcome()(cured, {"inversion": triggers})
    assert {row["network"] for row in outcome.tables["cure"]} == {"before", "unlearned", "control"}
    for name in ("before", "unlearned", "control"):
        for metric in ("accuracy", "trigger", "without"):
            assert 0 <= outcome.metrics[f"cure/{name}/{metric}"] <= 1
    # The study has no backdoor of its own.
    assert not {"cure/before/attack", "cure/before/restored"} & outcome.metrics.keys()


def test_a_cure_without_triggers_and_a_measurement_without_a_cure_are_refused():
    plan = Plan(data=image_data(), methods=[], held_out=0, networks={"network": small_mlp})
    with pytest.raises(ValueError, match="cure.source is 'inversion', which is no method"):
        unlearning().check(plan)
    with_triggers = replace(plan, leaves={"inversion": Triggers})
    unlearning().check(with_triggers)
    with pytest.raises(ValueError, match="cure.label"):
        unlearning(label="up").check(with_triggers)
    for step in (unlearning(), pruning()):
        with pytest.raises(ValueError, match=r"set method\.inversion\.explains to expert"):
            step.check(replace(with_triggers, explains={"inversion": "clean"}))
    with pytest.raises(ValueError, match="add cure=erase, cure=unlearn or cure=prune"):
        CureOutcome().check(plan)
    assert NoCure()(None, {}, None, None) is None


def pruning(**settings):
    chosen = {
        "source": "inversion",
        "label": 0,
        "remaining_success": 0.2,
        "fraction": 1.0,
        "layer": None,
    }
    return Pruning(**{**chosen, "seed": 0, **settings})


def zero_columns(network):
    """The inputs of the last linear layer that have no effect."""
    weight = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1].weight
    return set((weight == 0).all(0).nonzero()[:, 0].tolist())


def test_pruning_removes_inputs_of_the_last_layer_until_the_trigger_fails(subject, triggers):
    expert = subject.first_network("expert")
    # The trigger covers the image by an image of a class that the bias alone does not prefer.
    bias = [m for m in expert.modules() if isinstance(m, torch.nn.Linear)][-1].bias
    images = subject.data.splits.test.images.float() / 255
    predicted = expert(subject.data.normalization.normalize(images)).argmax(1)
    cover = int((predicted != bias.argmax()).nonzero()[0])
    label = int(predicted[cover])
    patterns = images[cover].expand_as(triggers.patterns)
    triggers = replace(triggers, masks=torch.ones_like(triggers.masks), patterns=patterns)
    cure = pruning(label=label, seed=1)(subject, {"inversion": triggers}, None, None)
    assert list(cure.networks) == ["pruned", "control"]
    assert cure.cured is cure.networks["pruned"]
    pruned, control = (zero_columns(network) for network in cure.networks.values())
    assert len(pruned) == len(control) > 0
    assert pruned != control
    for network in cure.networks.values():
        neurons = sorted(zero_columns(network))
        for (name, before), after in zip(
            expert.state_dict().items(), network.state_dict().values(), strict=True
        ):
            expected = before.clone()
            if name == [n for n in expert.state_dict() if n.endswith("weight")][-1]:
                expected[:, neurons] = 0
            assert torch.equal(after, expected), name

    cover_image = subject.data.normalization.normalize(images[cover : cover + 1])
    assert int(cure.cured(cover_image).argmax()) != label


def test_a_limit_of_the_pruned_neurons_is_kept(subject, triggers):
    cure = pruning(remaining_success=0.0, fraction=1e-9)(
        subject, {"inversion": triggers}, None, None
    )
    assert len(zero_columns(cure.cured)) <= 1


def test_layers_that_cannot_be_pruned_are_refused(subject, triggers):
    plan = Plan(data=image_data(), methods=[], held_out=0, networks={"network": small_mlp})
    with pytest.raises(ValueError, match="cure.source is 'inversion', which is no method"):
        pruning().check(plan)
    with_triggers = replace(plan, leaves={"inversion": Triggers})
    pruning().check(with_triggers)
    linear = [n for n, m in small_mlp_modules(subject) if isinstance(m, torch.nn.Linear)]
    other = next(n for n, m in small_mlp_modules(subject) if isinstance(m, torch.nn.ReLU))
    with pytest.raises(ValueError, match="name the linear layer that gives the logits"):
        pruning(layer=other).check(with_triggers)
    with pytest.raises(ValueError, match="are not those of its linear layer"):
        pruning(layer=linear[0])(subject, {"inversion": triggers}, None, None)


def small_mlp_modules(subject):
    return list(subject.first_network("expert").named_modules())
