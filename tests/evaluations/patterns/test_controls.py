"""Controls of patterns."""

import math
from dataclasses import replace
from statistics import fmean

import pytest
import torch

from cwx.evaluations.patterns.controls import PatternControls
from cwx.evaluations.patterns.predictive_power import PredictivePower
from cwx.explanations.patterns import Patterns
from cwx.functional.mask_search import binarise
from cwx.functional.rng import stream
from cwx.training.plan import Plan

SETTINGS = {
    "source": "iscp",
    "redrawn": None,
    "shuffled": None,
    "sizes": [0.25],
    "images": None,
    "draws": 4,
}


def patterns(subject, explains="expert"):
    classes, shape = len(subject.data.classes), subject.data.image_shape
    searched = torch.zeros(len(subject.data.splits.test), dtype=torch.bool)
    searched[::3] = True
    return Patterns(
        explains=explains,
        masks=torch.rand(classes, *shape[1:], generator=stream(1)),
        canvases=torch.rand(classes, *shape, generator=stream(2)),
        labels=torch.arange(classes),
        searched=searched,
    )


def success(network, subject, mask, canvas, label, counted):
    unit = subject.data.splits.test.images.float() / 255
    carrying = torch.where(mask, canvas, unit)
    predictions = network(subject.data.normalization.normalize(carrying)).argmax(1)
    return (predictions[counted] == label).double().mean().item()


def test_success_rates_are_those_of_the_definition(subject):
    source = patterns(subject)
    outcome = PatternControls(**SETTINGS)(subject, {"iscp": source})
    network = subject.first_network("expert")
    masks = binarise(source.masks, 4, stream(0))
    labels = subject.data.splits.test.labels
    nothing = torch.zeros_like(masks[0])
    for label, row in enumerate(outcome.tables["pattern_controls"]):
        counted = (labels != label) & ~source.searched
        arguments = source.canvases[label], label, counted
        assert row["pattern"] == pytest.approx(success(network, subject, masks[label], *arguments))
        assert row["no_pattern"] == pytest.approx(success(network, subject, nothing, *arguments))
    rows = outcome.tables["pattern_controls"]
    for row in rows:
        controls = row["random_masks"], row["other_canvas"], row["no_pattern"]
        assert row["gain"] == pytest.approx(row["pattern"] - max(controls))
    for column in ("pattern", "random_masks", "other_canvas", "no_pattern", "gain"):
        mean = outcome.metrics[f"pattern_controls/iscp/0.25/{column}"]
        assert mean == pytest.approx(fmean(row[column] for row in rows))
    assert list(outcome.figures) == ["pattern_controls"]


def test_a_mask_of_the_whole_image_equals_its_random_masks(subject):
    outcome = PatternControls(**SETTINGS | {"sizes": [1.0]})(subject, {"iscp": patterns(subject)})
    for row in outcome.tables["pattern_controls"]:
        assert row["pattern"] == row["random_masks"]
        assert row["random_masks_std"] == 0


def test_the_other_canvases_are_those_of_other_classes(subject):
    """With as many draws as there are other canvases, each of them is used once."""
    source = patterns(subject)
    outcome = PatternControls(**SETTINGS | {"draws": 2})(subject, {"iscp": source})
    network, masks = subject.first_network("expert"), binarise(source.masks, 4, stream(0))
    labels = subject.data.splits.test.labels
    for label, row in enumerate(outcome.tables["pattern_controls"]):
        counted = (labels != label) & ~source.searched
        expected = [
            success(network, subject, masks[label], source.canvases[other], label, counted)
            for other in range(3)
            if other != label
        ]
        assert row["other_canvas"] == pytest.approx(fmean(expected))


def test_canvases_that_equal_the_own_one_are_no_control(subject):
    """The mask on them is the pattern itself, and nothing of it would be left."""
    white = replace(patterns(subject), canvases=torch.ones(3, *subject.data.image_shape))
    outcome = PatternControls(**SETTINGS)(subject, {"iscp": white})
    assert not any("other_canvas" in name for name in outcome.metrics)
    for row in outcome.tables["pattern_controls"]:
        strongest = max(row["random_masks"], row["no_pattern"])
        assert row["gain"] == pytest.approx(row["pattern"] - strongest)


def test_a_method_of_a_single_class_has_no_other_canvases(subject):
    source = patterns(subject)
    alone = replace(
        source, masks=source.masks[:1], canvases=source.canvases[:1], labels=source.labels[:1]
    )
    outcome = PatternControls(**SETTINGS)(subject, {"iscp": alone})
    assert not any("other_canvas" in name for name in outcome.metrics)
    assert len(outcome.tables["pattern_controls"]) == 1


def test_random_masks_have_the_pattern_s_size_and_differ(subject, monkeypatch):
    masks = []
    original = PatternControls._success

    def record(probe, candidate, counted):
        masks.append(candidate.mask)
        return original(probe, candidate, counted)

    monkeypatch.setattr(PatternControls, "_success", staticmethod(record))
    PatternControls(**SETTINGS)(subject, {"iscp": patterns(subject)})
    assert {int(mask.sum()) for mask in masks} == {4}
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > len(masks) / 2


def test_the_network_with_redrawn_weights_has_its_own_patterns(subject):
    sources = {"iscp": patterns(subject), "iscp_redrawn": patterns(subject, "redrawn")}
    settings = SETTINGS | {"redrawn": "iscp_redrawn"}
    metrics = PatternControls(**settings)(subject, sources).metrics
    network = subject.first_network("redrawn")
    source, labels = sources["iscp_redrawn"], subject.data.splits.test.labels
    masks = binarise(source.masks, 4, stream(0))
    gains = []
    for label, mask in enumerate(masks):
        arguments = source.canvases[label], label, (labels != label) & ~source.searched
        gains.append(
            success(network, subject, mask, *arguments)
            - success(network, subject, torch.zeros_like(mask), *arguments)
        )
    assert metrics["pattern_controls/iscp/0.25/redrawn"] == pytest.approx(fmean(gains))


def shuffled(subject):
    """Other masks, on the canvases of the next class."""
    source = patterns(subject)
    return replace(
        source,
        masks=torch.rand(source.masks.shape, generator=stream(7)),
        canvases=source.canvases.roll(1, 0),
        canvas_labels=source.labels.roll(1),
    )


def test_patterns_of_other_canvases_are_beside_those_of_each_class(subject):
    sources = {"iscp": patterns(subject), "iscp_shuffled": shuffled(subject)}
    settings = SETTINGS | {"shuffled": "iscp_shuffled"}
    outcome = PatternControls(**settings)(subject, sources)
    network, source = subject.first_network("expert"), sources["iscp_shuffled"]
    labels, masks = subject.data.splits.test.labels, binarise(source.masks, 4, stream(0))
    rates = [
        success(network, subject, mask, canvas, label, (labels != label) & ~source.searched)
        for label, (mask, canvas) in enumerate(zip(masks, source.canvases, strict=True))
    ]
    rows = outcome.tables["pattern_controls"]
    assert [row["shuffled"] for row in rows] == pytest.approx(rates)
    name = "pattern_controls/iscp/0.25/shuffled"
    assert outcome.metrics[name] == pytest.approx(fmean(rates))
    assert outcome.metrics[f"{name}/class/left"] == pytest.approx(rates[0])
    # Of the other columns the gain alone depends on it.
    alone = PatternControls(**SETTINGS)(subject, sources).tables["pattern_controls"]
    for row, without in zip(rows, alone, strict=True):
        gain = min(without["gain"], row["pattern"] - row["shuffled"])
        searched = {"shuffled": row["shuffled"], "equal_choice": row["pattern"]}
        assert row == without | searched | {"gain": pytest.approx(gain)}


def several(source, count):
    """Further canvases of each class, with other masks."""
    shape = (count * len(source.labels), *source.masks.shape[1:])
    return replace(
        source,
        masks=torch.rand(shape, generator=stream(8)),
        canvases=torch.rand(shape[0], *source.canvases.shape[1:], generator=stream(9)),
        labels=source.labels.repeat_interleave(count),
        canvas_labels=None,
    )


def test_a_search_of_fewer_canvases_is_compared_with_a_choice_among_as_few(subject):
    """Such a search cannot choose: beside it stands the mean over the canvases of the pattern."""
    source = several(patterns(subject), 3)
    sources = {"iscp": source, "iscp_shuffled": shuffled(subject)}
    outcome = PatternControls(**SETTINGS | {"shuffled": "iscp_shuffled"})(subject, sources)
    network, labels = subject.first_network("expert"), subject.data.splits.test.labels
    masks = binarise(source.masks, 4, stream(0))
    rates = [
        success(network, subject, mask, canvas, label, (labels != label) & ~source.searched)
        for label, mask, canvas in zip(source.labels.tolist(), masks, source.canvases, strict=True)
    ]
    for label, row in enumerate(outcome.tables["pattern_controls"]):
        of_class = rates[3 * label : 3 * label + 3]
        assert row["pattern"] in [pytest.approx(rate) for rate in of_class]
        assert row["equal_choice"] == pytest.approx(fmean(of_class))
        controls = row["random_masks"], row["other_canvas"], row["no_pattern"]
        gains = row["pattern"] - max(controls), row["equal_choice"] - row["shuffled"]
        assert row["gain"] == pytest.approx(min(gains))
    # With as many canvases both are chosen alike, in the other direction as well.
    for name in ("iscp", "iscp_shuffled"):
        alike = {"iscp": shuffled(subject), "iscp_shuffled": shuffled(subject), name: source}
        alike = {key: replace(value, canvas_labels=None) for key, value in alike.items()}
        table = PatternControls(**SETTINGS | {"shuffled": "iscp_shuffled"})(subject, alike).tables
        shown = [
            row["shuffled" if name == "iscp_shuffled" else "equal_choice"]
            for row in table["pattern_controls"]
        ]
        assert shown == pytest.approx([fmean(rates[3 * i : 3 * i + 3]) for i in range(3)])


def test_random_classes_give_no_search_an_advantage(subject):
    """If masks and canvases are drawn alike for pattern and control, their difference is 0."""
    differences = []
    for seed in range(40):
        draw = several(patterns(subject), 5)
        masks = torch.rand(draw.masks.shape, generator=stream(10, seed))
        control = torch.rand(3, *draw.masks.shape[1:], generator=stream(11, seed))
        canvases = torch.rand(3, *draw.canvases.shape[1:], generator=stream(12, seed))
        sources = {
            "iscp": replace(draw, masks=masks),
            "iscp_shuffled": replace(shuffled(subject), masks=control, canvases=canvases),
        }
        table = PatternControls(**SETTINGS | {"shuffled": "iscp_shuffled"})(subject, sources).tables
        differences += [row["equal_choice"] - row["shuffled"] for row in table["pattern_controls"]]
    assert fmean(differences) == pytest.approx(0, abs=0.02)


def test_a_search_on_the_own_canvases_is_no_control(subject):
    """White canvases are those of every class: the search on them gives the pattern itself."""
    white = replace(patterns(subject), canvases=torch.ones(3, *subject.data.image_shape))
    sources = {"iscp": white, "iscp_shuffled": replace(white, canvas_labels=white.labels.roll(1))}
    outcome = PatternControls(**SETTINGS | {"shuffled": "iscp_shuffled"})(subject, sources)
    assert not any("shuffled" in name for name in outcome.metrics)
    for row in outcome.tables["pattern_controls"]:
        strongest = max(row["random_masks"], row["no_pattern"])
        assert row["gain"] == pytest.approx(row["pattern"] - strongest)


def test_a_class_without_a_pattern_of_other_canvases_has_none_in_the_table(subject):
    source = shuffled(subject)
    few = replace(
        source,
        masks=source.masks[1:],
        canvases=source.canvases[1:],
        labels=source.labels[1:],
        canvas_labels=source.canvas_labels[1:],
    )
    sources = {"iscp": patterns(subject), "iscp_shuffled": few}
    outcome = PatternControls(**SETTINGS | {"shuffled": "iscp_shuffled"})(subject, sources)
    values = [row["shuffled"] for row in outcome.tables["pattern_controls"]]
    assert [math.isnan(value) for value in values] == [True, False, False]
    mean = outcome.metrics["pattern_controls/iscp/0.25/shuffled"]
    assert mean == pytest.approx(fmean(values[1:]))


def test_controls_on_another_network_are_refused(subject):
    plan = Plan(
        data=subject.data,
        methods=["iscp", "iscp_shuffled"],
        held_out=0,
        leaves=dict.fromkeys(("iscp", "iscp_shuffled"), Patterns),
        explains={"iscp": "expert", "iscp_shuffled": "clean"},
    )
    evaluation = PatternControls(**SETTINGS | {"shuffled": "iscp_shuffled"})
    with pytest.raises(ValueError, match=r"set method\.iscp_shuffled\.explains=expert"):
        evaluation.check(plan)
    redrawn = PatternControls(**SETTINGS | {"redrawn": "iscp_shuffled"})
    redrawn.check(plan)
    with pytest.raises(ValueError, match=r"'iscp' explains 'clean': leave .* null, or set"):
        redrawn.check(replace(plan, explains=plan.explains | {"iscp": "clean"}))
    evaluation.check(replace(plan, explains=dict.fromkeys(plan.explains, "clean")))


def test_a_class_without_images_outside_the_search_has_empty_cells(subject):
    source, labels = patterns(subject), subject.data.splits.test.labels
    alone = replace(source, searched=labels != 1)
    sources = {"iscp": alone, "iscp_shuffled": shuffled(subject)}
    settings = SETTINGS | {"shuffled": "iscp_shuffled"}
    outcome = PatternControls(**settings)(subject, sources)
    rows, name = outcome.tables["pattern_controls"], "pattern_controls/iscp/0.25"
    assert [row["pattern"] == "" for row in rows] == [False, True, False]
    assert {rows[1][column] for column in ("random_masks", "no_pattern", "gain")} == {""}
    for column in ("pattern", "random_masks", "other_canvas", "no_pattern", "gain"):
        mean = fmean(row[column] for row in (rows[0], rows[2]))
        assert outcome.metrics[f"{name}/{column}"] == pytest.approx(mean)
    assert f"{name}/gain/class/{rows[1]['class']}" not in outcome.metrics
    # No class has such images.
    whole = replace(source, searched=torch.ones_like(source.searched))
    outcome = PatternControls(**SETTINGS | {"redrawn": "iscp"})(subject, {"iscp": whole})
    assert not outcome.metrics
    assert not outcome.figures
    assert len(outcome.tables["pattern_controls"]) == 3


def test_searches_that_leave_no_test_images_are_refused(subject):
    names = ("iscp", "iscp_redrawn", "iscp_shuffled")
    plan = Plan(
        data=subject.data,
        methods=names,
        held_out=0,
        leaves=dict.fromkeys(names, Patterns),
        searched=dict.fromkeys(names, 0.5),
    )
    evaluation = PatternControls(
        **SETTINGS | {"redrawn": "iscp_redrawn", "shuffled": "iscp_shuffled"}
    )
    evaluation.check(plan)
    for setting, name in zip(("source", "redrawn", "shuffled"), names, strict=True):
        message = rf"pattern_controls\.{setting} is '{name}', .*{name}\.searched=0\.99 uses all 24"
        with pytest.raises(ValueError, match=message):
            evaluation.check(replace(plan, searched={**plan.searched, name: 0.99}))


def test_a_control_is_no_source_of_predictive_power(subject):
    sources = {
        "iscp": patterns(subject),
        "iscp_redrawn": patterns(subject, "redrawn"),
        "iscp_shuffled": shuffled(subject),
        "redrawn_layer": patterns(subject, "redrawn/1"),
    }
    evaluate = PredictivePower(sizes=[0.25], gammas=[], images=None, canvas_choice="lowest_loss")
    metrics = evaluate(subject, sources).metrics
    assert "predictive_power/power/iscp/0.25" in metrics
    assert not any("redrawn" in name or "shuffled" in name for name in metrics)


@pytest.mark.parametrize(
    "changes",
    [{"source": "activation"}, {"redrawn": "iscp_redrawn"}, {"shuffled": "iscp_shuffled"}],
)
def test_a_method_without_patterns_is_refused(subject, changes):
    plan = Plan(
        data=subject.data, methods=["iscp", "activation"], held_out=0, leaves={"iscp": Patterns}
    )
    with pytest.raises(ValueError, match=r"evaluation\.pattern_controls\."):
        PatternControls(**SETTINGS | changes).check(plan)
    PatternControls(**SETTINGS).check(replace(plan, methods=["iscp"]))
