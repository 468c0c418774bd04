"""The verdict: suspicious, nothing found, or the reason why neither can be said."""

from dataclasses import replace

import pytest
import torch

from cwx.data.canvases import test_logits as logits_of_test
from cwx.evaluations.verdict.decision import Evidence, decide
from cwx.evaluations.verdict.evaluation import Verdict
from cwx.evaluations.verdict.ranking import Ranking, rank_classes
from cwx.evaluations.verdict.rates import measured_rates
from cwx.evaluations.verdict.statistics import (
    MarginRatio,
    PatternSuccess,
    PerturbationSuccess,
    TriggerSize,
)
from cwx.explanations.margins import Margins
from cwx.explanations.patterns import Patterns, Perturbations, Triggers
from cwx.functional.bank_comparison import compare_with_bank
from cwx.training.bank import Bank
from cwx.training.plan import Plan

LIMITS = {"alpha": 0.05, "accuracy_drop": 0.1, "least_images": 10}


def comparison(extreme, bank=19):
    values = torch.randn(bank + 1, 2, 4, generator=torch.Generator().manual_seed(0))
    if extreme:
        values[0, 1, 2] = 30
    else:
        values[0] = 0
    return compare_with_bank(values[0], values[1:])


def evidence(**changes):
    return Evidence(
        **{
            "comparison": comparison(extreme=True),
            "bank": 19,
            "accuracy": 0.8,
            "at_chance": False,
            "bank_accuracies": [0.78, 0.8, 0.82],
            "images": 100,
            "top_class": "'dog' (index 2)",
            "other_classes": [],
            "searched": ["trigger_size"],
            **changes,
        }
    )


def test_a_network_that_no_clean_one_resembles_is_suspicious():
    state, sentence = decide(evidence(), **LIMITS)
    assert state == "suspicious"
    assert sentence == (
        "Suspicious: class 'dog' (index 2). None of 19 clean networks looks like this (p = 0.05)."
    )


def test_several_classes_that_stand_out_are_named():
    state, sentence = decide(
        evidence(other_classes=["'cat' (index 1)", "'cow' (index 0)"]), **LIMITS
    )
    assert state == "suspicious"
    assert "Class 'cat' (index 1) and 1 more stand out as well: " in sentence
    assert "another recipe than the bank's" in sentence
    _, sentence = decide(evidence(other_classes=["'cat' (index 1)"]), **LIMITS)
    assert "Class 'cat' (index 1) stands out as well: " in sentence


def test_an_ordinary_network_names_what_was_looked_for():
    state, sentence = decide(evidence(comparison=comparison(extreme=False)), **LIMITS)
    assert state == "nothing found"
    assert sentence.startswith("Nothing found (p = ")
    assert sentence.endswith("Looked for: trigger_size.")


def test_a_level_that_no_network_of_this_bank_can_reach_says_nothing():
    """Else even the most suspicious network would be an ordinary one."""
    limits = {**LIMITS, "alpha": 0.01}
    state, sentence = decide(evidence(bank=37), **limits)
    assert state == "cannot say"
    assert "37 networks, and with fewer than 99 the p-value cannot reach 0.01" in sentence
    assert decide(evidence(bank=99), **limits)[0] != "cannot say"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"comparison": None, "bank": 0}, ["no bank", "experts.bank", "'dog'"]),
        ({"bank": 18}, ["the bank has 18 networks", "fewer than 19", "'dog'"]),
        ({"images": 9}, ["there are 9 test images", "needs 10 or more"]),
        ({"accuracy": 0.25, "at_chance": True}, ["25% of the images", "chance", "normalisation"]),
        ({"accuracy": 0.69}, ["69% of the images", "the bank 80%", "recipe"]),
        ({"accuracy": 0.91}, ["the bank classifies 80%", "the network 91%", "same data"]),
    ],
)
def test_the_reason_why_nothing_can_be_said(changes, words):
    state, sentence = decide(evidence(**changes), **LIMITS)
    assert state == "cannot say"
    assert all(word in sentence for word in ["Cannot say: ", *words]), sentence


def test_the_measured_rates_name_the_networks_they_were_measured_on():
    rates = measured_rates()
    of_clean = [row for row in rates if row["networks"] == "clean"]
    assert of_clean
    for row in rates:
        assert row["measured_on"]
        flagged, networks = map(int, str(row["flagged"]).split(" (")[0].split(" of "))
        assert 0 <= flagged <= networks > 0
    # A table has the same columns in all rows.
    assert len({tuple(row) for row in rates}) == 1


@pytest.fixture
def triggers(subject):
    classes, shape = len(subject.data.classes), subject.data.image_shape
    masks = torch.full((classes, *shape[1:]), 0.01)
    # The trigger of class 1 is a bright column, as small as its images allow.
    masks[:, :, 1] = torch.tensor([0.9, 0.3, 0.9])[:classes, None]
    return Triggers(
        explains="expert",
        masks=masks,
        patterns=torch.rand(classes, *shape, generator=torch.Generator().manual_seed(0)),
        labels=torch.arange(classes),
        success=torch.tensor([1.0, 1.0, 0.5]),
        required=torch.tensor(0.95),
        searched=torch.arange(len(subject.data.splits.test)) < 6,
    )


def verdict(**settings):
    return Verdict(
        **{
            "statistics": {"trigger_size": TriggerSize(source="inversion")},
            "images": 20,
            **LIMITS,
            **settings,
        }
    )


def with_bank(subject, own, *, count=19, accuracy=None, **others):
    """The subject with a bank whose statistics differ from `own` and `others` by noise."""
    noise = 0.2 * torch.randn(count, len(own), generator=torch.Generator().manual_seed(1)).double()
    if accuracy is None:
        network, data = subject.first_network("expert"), subject.data
        predictions = logits_of_test(network, data, subject.device).argmax(1)
        accuracy = (predictions == data.splits.test.labels).double().mean().item()
    usual = {"inversion/size": own, **others}
    statistics = {name: values + noise for name, values in usual.items()}
    trajectories = [subject.held_out[0]] * count
    bank = Bank(trajectories=trajectories, accuracies=[accuracy] * count, statistics=statistics)
    return replace(subject, bank=bank)


def test_a_class_with_a_far_smaller_trigger_than_in_the_bank_is_suspected(subject, triggers):
    own = TriggerSize(source="inversion")(subject, triggers)["inversion/size"]
    usual = own - torch.tensor([0.0, 2.0, 0.0])
    outcome = verdict()(with_bank(subject, usual), {"inversion": triggers})
    (row,) = outcome.tables["verdict"]
    assert (row["verdict"], row["class"], row["p"]) == ("suspicious", subject.data.classes[1], 0.05)
    assert outcome.metrics["verdict/suspicious"] == 1
    assert outcome.metrics["verdict/p/inversion/size"] == 0.05
    assert set(outcome.figures) == {"verdict", "verdict_trigger"}
    assert 0 <= outcome.metrics["verdict/trigger/success"] <= 1
    assert outcome.metrics["verdict/trigger/bank"] <= 1
    assert len(outcome.tables["verdict_classes"]) == 3


@pytest.fixture
def perturbations(subject):
    """Two radii; class 2 has a perturbation that replaces the image."""
    classes, shape = len(subject.data.classes), subject.data.image_shape
    deltas = torch.zeros(2 * classes, *shape)
    deltas[classes + 2] = 0.5
    return Perturbations(
        explains="expert",
        deltas=deltas,
        labels=torch.arange(classes).repeat(2),
        epsilons=torch.tensor([0.25, 0.5]).repeat_interleave(classes),
        searched=torch.arange(len(subject.data.splits.test)) < 6,
    )


def test_the_trigger_of_the_statistic_that_decides_is_shown(subject, triggers, perturbations):
    size = TriggerSize(source="inversion")
    success = PerturbationSuccess(source="universal", images=20)
    own = size(subject, triggers)["inversion/size"]
    of_radii = success(subject, perturbations)
    sources = {"inversion": triggers, "universal": perturbations}
    both = verdict(statistics={"size": size, "success": success})

    def shown(decisive):
        # The suspect exceeds the bank in class 2 by the decisive statistic.
        usual = {"inversion/size": own} | of_radii
        usual[decisive] = usual[decisive] - torch.tensor([0.0, 0.0, 4.0])
        outcome = both(with_bank(subject, usual.pop("inversion/size"), **usual), sources)
        assert outcome.tables["verdict"][0]["class"] == subject.data.classes[2]
        assert both.suspected_class(with_bank(subject, own, **of_radii), sources) in range(3)
        return outcome.tables["verdict"][0]["trigger"], outcome.metrics

    kind, metrics = shown("inversion/size")
    assert kind == "recovered trigger"
    assert metrics["verdict/trigger/size"] == pytest.approx(triggers.masks[2].mean().item())
    for radius, index in (("63.8", 2), ("128", 5)):
        kind, metrics = shown(f"universal/{radius}")
        assert kind == f"universal perturbation within {radius} of 255"
        assert "verdict/trigger/size" not in metrics
        outside = subject.data.splits.test.at(~perturbations.searched)
        others = outside.at(outside.labels != 2).spread(20)
        changed = perturbations.attach(index)(others.images.float() / 255)
        logits = subject.first_network("expert")(subject.data.normalization.normalize(changed))
        assert metrics["verdict/trigger/success"] == pytest.approx(
            (logits.argmax(1) == 2).double().mean().item()
        )


def test_every_statistic_shows_the_class_that_it_names_or_nothing(subject, triggers, perturbations):
    patterns = Patterns(
        explains="expert",
        masks=torch.rand(2, *subject.data.image_shape[1:]),
        canvases=torch.rand(2, *subject.data.image_shape),
        labels=torch.tensor([0, 2]),
        searched=triggers.searched,
    )
    margins = Margins(
        explains="expert",
        unit_images=torch.rand(1, *subject.data.image_shape),
        labels=torch.tensor([2]),
        start_margins=torch.ones(1, 1),
    )
    outputs = [
        (TriggerSize(source="m"), triggers, "m/size"),
        (PerturbationSuccess(source="m", images=5), perturbations, "m/63.8"),
        (PatternSuccess(source="m", sizes=[0.25], images=5), patterns, "m/0.25"),
        (MarginRatio(source="m"), margins, "m/ratio"),
    ]
    images = torch.rand(4, *subject.data.image_shape)
    for statistic, output, name in outputs:
        assert isinstance(output, statistic.needs)
        trigger = statistic.trigger(output, 2, name)
        if isinstance(output, Margins):
            assert trigger is None
            continue
        index = int((output.labels == 2).nonzero()[0])
        applied = output.cut(0.25) if isinstance(output, Patterns) else output
        assert trigger.label == 2
        torch.testing.assert_close(trigger.attach(images), applied.attach(index)(images))
        for picture, _ in trigger.pictures:
            assert picture.shape == subject.data.image_shape
            assert 0 <= picture.min() <= picture.max() <= 1
        without = replace(output, labels=output.labels.clamp(max=1))
        assert statistic.trigger(without, 2, name) is None


def test_other_classes_are_those_of_half_the_excess_by_the_deciding_statistic(subject, triggers):
    own = TriggerSize(source="inversion")(subject, triggers)["inversion/size"]
    for second, others in ((0.0, []), (1.5, []), (3.0, [0])):
        usual = own - torch.tensor([second, 4.0, 0.0])
        with_usual = with_bank(subject, usual)
        ranking = rank_classes(
            {"size": TriggerSize(source="inversion")}, with_usual, {"inversion": triggers}
        )
        assert ranking.label == 1
        assert list(ranking.others) == others
        metrics = verdict()(with_usual, {"inversion": triggers}).metrics
        assert metrics["verdict/others"] == len(others)
    without = rank_classes(
        {"size": TriggerSize(source="inversion")}, subject, {"inversion": triggers}
    )
    assert list(without.others) == []


def test_a_network_like_the_bank_is_not_suspected(subject, triggers):
    own = TriggerSize(source="inversion")(subject, triggers)["inversion/size"]
    outcome = verdict()(with_bank(subject, own), {"inversion": triggers})
    assert outcome.tables["verdict"][0]["verdict"] == "nothing found"
    assert outcome.metrics["verdict/suspicious"] == 0
    assert outcome.metrics["verdict/p"] > 0.05
    assert outcome.tables["verdict_rates"] == measured_rates()


def test_without_a_bank_there_is_a_ranking_and_no_p(subject, triggers):
    outcome = verdict()(subject, {"inversion": triggers})
    (row,) = outcome.tables["verdict"]
    assert (row["verdict"], row["class"], row["p"]) == ("cannot say", subject.data.classes[1], "")
    assert "verdict/suspicious" not in outcome.metrics
    assert "verdict/p" not in outcome.metrics
    assert not {"verdict_statistics", "verdict_rates"} & set(outcome.tables)


def test_a_bank_of_another_accuracy_allows_no_verdict(subject, triggers):
    own = TriggerSize(source="inversion")(subject, triggers)["inversion/size"]
    outcome = verdict()(with_bank(subject, own - 3, accuracy=0.2), {"inversion": triggers})
    assert outcome.tables["verdict"][0]["verdict"] == "cannot say"
    assert "verdict/suspicious" not in outcome.metrics


def plan(subject, **leaves):
    return Plan(data=subject.data, methods=list(leaves), held_out=0, leaves=leaves)


@pytest.mark.parametrize(
    ("leaves", "settings", "message"),
    [
        ({}, {}, "trigger_size.source is 'inversion', which is no method .* leaves triggers"),
        ({"inversion": Patterns}, {}, "leaves triggers: add inversion to method="),
        ({"inversion": Triggers}, {"statistics": {}}, "statistics is empty"),
    ],
)
def test_a_statistic_without_its_method_is_refused(leaves, settings, message, subject):
    with pytest.raises(ValueError, match=message):
        verdict(**settings).check(plan(subject, **leaves))


def test_a_method_that_explains_another_network_is_refused(subject):
    explained = replace(plan(subject, inversion=Triggers), explains={"inversion": "clean"})
    with pytest.raises(ValueError, match="explains 'clean': a verdict is about the first expert"):
        verdict().check(explained)


def test_a_search_that_leaves_no_test_images_is_refused(subject):
    explained = replace(plan(subject, inversion=Triggers), searched={"inversion": 1.0})
    with pytest.raises(ValueError, match=r"method\.inversion\.searched=1 uses all 24: lower it"):
        verdict().check(explained)
    verdict().check(replace(explained, searched={"inversion": 0.9}))


def test_a_class_without_images_of_others_outside_the_search_has_no_success(subject):
    test = subject.data.splits.test
    output = Perturbations(
        explains="expert",
        deltas=torch.zeros(3, *subject.data.image_shape),
        labels=torch.arange(3),
        epsilons=torch.full((3,), 8 / 255),
        searched=test.labels != 1,
    )
    values = PerturbationSuccess(source="universal", images=100)(subject, output)["universal/8"]
    assert values.isnan().tolist() == [False, True, False]


def test_success_is_measured_on_images_outside_the_search(subject):
    """A perturbation that does nothing succeeds as often as the network confuses the images."""
    classes, shape = len(subject.data.classes), subject.data.image_shape
    test = subject.data.splits.test
    searched = torch.arange(len(test)) < 9
    output = Perturbations(
        explains="expert",
        deltas=torch.zeros(2 * classes, *shape),
        labels=torch.arange(classes).repeat(2),
        epsilons=torch.tensor([4 / 255, 8 / 255]).repeat_interleave(classes),
        searched=searched,
    )
    values = PerturbationSuccess(source="universal", images=100)(subject, output)
    assert set(values) == {"universal/4", "universal/8"}
    outside = test.at(~searched)
    normalized = subject.data.normalization.from_bytes(outside.images)
    predicted = subject.first_network("expert")(normalized).argmax(1)
    for label in range(classes):
        others = outside.labels != label
        hits = int((predicted[others] == label).sum())
        expected = torch.tensor((hits + 0.5) / (int(others.sum()) - hits + 0.5)).log()
        assert values["universal/4"][label] == pytest.approx(expected.item(), abs=1e-6)


def test_pattern_success_is_the_mean_over_the_canvases_of_a_class(subject):
    shape = subject.data.image_shape
    output = Patterns(
        explains="expert",
        masks=torch.rand(3, *shape[1:], generator=torch.Generator().manual_seed(0)),
        canvases=torch.rand(3, *shape, generator=torch.Generator().manual_seed(1)),
        labels=torch.tensor([0, 0, 2]),
        searched=torch.zeros(len(subject.data.splits.test), dtype=torch.bool),
    )
    statistic = PatternSuccess(source="iscp", sizes=[0.5], images=100)
    both = statistic(subject, output)["iscp/0.5"]
    single = [
        statistic(
            subject,
            replace(
                output,
                masks=output.masks[i : i + 1],
                canvases=output.canvases[i : i + 1],
                labels=output.labels[i : i + 1],
            ),
        )["iscp/0.5"]
        for i in range(3)
    ]
    assert both[0] == pytest.approx((single[0][0] + single[1][0]).item() / 2, abs=1e-4)
    assert both[1].isnan()
    assert both[2] == pytest.approx(single[2][2].item(), abs=1e-4)


def test_the_margin_is_compared_with_that_of_real_images(subject):
    classes, shape = len(subject.data.classes), subject.data.image_shape
    output = Margins(
        explains="expert",
        unit_images=torch.rand(classes, *shape),
        labels=torch.arange(classes),
        start_margins=torch.tensor([[1.0, 4.0], [8.0, 2.0], [-1.0, -3.0]]),
    )
    values = MarginRatio(source="margin")(subject, output)["margin/ratio"]
    # The scale of the logits cancels; a class that no image reaches is the least suspicious.
    assert values[1] - values[0] == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-6)
    assert values[2] == values.min()


def test_the_trigger_shown_is_of_a_statistic_by_which_the_class_itself_stands_out():
    """The margin decides for class 3; by `universal` class 5 stands out, and class 3 does not."""
    names = ("universal", "margin", "size")
    bank = torch.randn(59, 3, 8, generator=torch.Generator().manual_seed(0))
    values = torch.zeros(3, 8)
    values[0, 5], values[1, 3], values[2, 3] = 6, 8, 4
    compared = compare_with_bank(values, bank)
    ranking = Ranking(
        statistics=dict.fromkeys(names),
        values=values,
        bank=bank,
        comparison=compared,
        excess=compared.excess,
        label=compared.label,
    )
    assert ranking.label == 3
    assert ranking.order == ["margin", "size", "universal"]
