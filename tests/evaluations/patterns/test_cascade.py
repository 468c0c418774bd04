"""Patterns of networks with more and more re-drawn layers."""

import math
from dataclasses import replace
from statistics import fmean

import pytest
import torch

from cwx.evaluations.patterns.cascade import PatternCascade
from cwx.explanations.patterns import Patterns
from cwx.functional.mask_search import binarise
from cwx.functional.mask_similarity import overlap, rank_correlation
from cwx.functional.rng import stream
from cwx.training.plan import Plan


def patterns(subject, explains, seed):
    """Two canvases a class; masks of the seed."""
    shape, labels = subject.data.image_shape, torch.arange(3).repeat_interleave(2)
    searched = torch.zeros(len(subject.data.splits.test), dtype=torch.bool)
    searched[::3] = True
    return Patterns(
        explains=explains,
        masks=torch.rand(6, *shape[1:], generator=stream(seed)),
        canvases=torch.rand(6, *shape, generator=stream(99)),
        labels=labels,
        searched=searched,
        means=torch.rand(6, *shape[1:], generator=stream(seed, 1)),
    )


def sources(subject):
    return {
        "all": patterns(subject, "redrawn", 2),
        "iscp": patterns(subject, "expert", 0),
        "one": patterns(subject, "redrawn/1", 1),
        "activation": subject.real_images(1),
    }


def cascade(subject, outputs, **settings):
    chosen = {"source": "iscp", "size": 0.25, "images": None}
    return PatternCascade(**chosen | settings)(subject, outputs)


@pytest.fixture(scope="module")
def outcome(subject):
    return cascade(subject, sources(subject))


def test_the_intact_network_is_equal_to_itself(outcome):
    assert outcome.metrics["pattern_cascade/iscp/0/iou"] == 1
    assert outcome.metrics["pattern_cascade/iscp/0/correlation"] == pytest.approx(1)
    assert outcome.metrics["pattern_cascade/iscp/0/iou/std"] == 0
    assert list(outcome.figures) == ["pattern_cascade"]


def test_the_networks_are_in_the_order_of_their_layers(outcome):
    # The multilayer perceptron of the tests has two layers.
    rows = outcome.tables["pattern_cascade"]
    assert [(row["layers"], row["source"]) for row in rows[::3]] == [
        (0, "iscp"), (1, "one"), (2, "all"),
    ]  # fmt: skip
    assert [row["class"] for row in rows[:3]] == ["left", "middle", "right"]


@pytest.mark.parametrize(("name", "layers"), [("one", 1), ("all", 2)])
def test_masks_are_compared_by_canvas(subject, outcome, name, layers):
    intact, other = sources(subject)["iscp"], sources(subject)[name]
    expected = {"iou": [], "correlation": [], "correlation_visible": []}
    unit = subject.data.splits.test.images.float() / 255
    for label in range(3):
        rows = slice(2 * label, 2 * label + 2)
        a, b = intact.cut(0.25).masks[rows], other.cut(0.25).masks[rows]
        expected["iou"].append(overlap(a, b).mean().item())
        means = [p.means[rows].flatten(1) for p in (intact, other)]
        expected["correlation"].append(rank_correlation(*means).mean().item())
        visible = []
        for index in (2 * label, 2 * label + 1):
            far = (unit - intact.canvases[index]).abs().mean((0, 1)).flatten()
            pixels = far > far.median()
            pair = [p.means[index].flatten()[pixels][None] for p in (intact, other)]
            visible.append(rank_correlation(*pair).item())
        expected["correlation_visible"].append(fmean(visible))
    for column, values in expected.items():
        metric = f"pattern_cascade/iscp/{layers}/{column}"
        assert outcome.metrics[metric] == pytest.approx(fmean(values))
        assert outcome.metrics[f"{metric}/class/right"] == pytest.approx(values[2])


def test_patterns_are_measured_on_the_network_that_they_were_searched_on(subject, outcome):
    source, network = sources(subject)["one"], subject.first_network("redrawn/1")
    test, normalize = subject.data.splits.test, subject.data.normalization.normalize
    unit, masks = test.images.float() / 255, binarise(source.masks, 4, stream(0))
    clean = network(normalize(unit)).argmax(1)
    for row in outcome.tables["pattern_cascade"][3:6]:
        label = subject.data.classes.index(row["class"])
        others = test.labels != label
        candidates = []
        for index in (2 * label, 2 * label + 1):
            logits = network(normalize(torch.where(masks[index], source.canvases[index], unit)))
            loss = -logits.double().log_softmax(1)[source.searched & others, label].mean().item()
            hits = logits.argmax(1)[~source.searched & others] == label
            candidates.append((loss, hits.double().mean().item()))
        assert row["success"] == pytest.approx(min(candidates)[1])
        without = (clean[~source.searched & others] == label).double().mean().item()
        assert row["no_pattern"] == pytest.approx(without)


def test_masks_that_are_everywhere_equal_have_no_correlation(subject):
    """As of a network without a gradient; the other measures remain."""
    outputs = sources(subject)
    equal = replace(outputs["one"], means=torch.ones_like(outputs["one"].means))
    metrics = cascade(subject, {**outputs, "one": equal}).metrics
    assert math.isnan(metrics["pattern_cascade/iscp/1/correlation"])
    assert math.isnan(metrics["pattern_cascade/iscp/1/correlation/std"])
    assert metrics["pattern_cascade/iscp/1/iou"] > 0


def test_canvases_that_only_one_method_searched_are_not_compared(subject):
    outputs = sources(subject)
    few = outputs["one"]
    canvases = few.canvases.clone()
    canvases[[1, 2, 3]] += 0.1
    outcome = cascade(subject, {**outputs, "one": replace(few, canvases=canvases)})
    rows = [row for row in outcome.tables["pattern_cascade"] if row["source"] == "one"]
    assert [(row["class"], row["canvases"]) for row in rows] == [("left", 1), ("right", 2)]
    pair = [p.cut(0.25).masks[:1] for p in (outputs["iscp"], few)]
    assert rows[0]["iou"] == pytest.approx(overlap(*pair).item())


def test_canvases_that_agree_by_chance_are_no_step_of_the_cascade(subject):
    """Random canvases agree in a class; the search on the same canvases is the step."""
    outputs = sources(subject)
    one = outputs["one"]
    canvases = one.canvases + 0.1
    canvases[0] = one.canvases[0]
    by_chance = replace(one, canvases=canvases)
    for first in ({"by_chance": by_chance, **outputs}, {**outputs, "by_chance": by_chance}):
        rows = cascade(subject, first).tables["pattern_cascade"]
        assert [row for row in rows if row["source"] == "one"]
        assert not [row for row in rows if row["source"] == "by_chance"]
    # Of two that share canvases in most classes, that which shares more.
    canvases[2:] = one.canvases[2:]
    less = {"less": replace(one, canvases=canvases), **outputs}
    rows = cascade(subject, less).tables["pattern_cascade"]
    assert {row["source"] for row in rows if row["layers"] == 1} == {"one"}


def test_masks_are_compared_where_no_image_is_outside_the_search(subject, outcome):
    outputs = sources(subject)
    every = torch.ones_like(outputs["iscp"].searched)
    labels = subject.data.splits.test.labels
    # The patterns of the intact network used all images; those of another, all but one class.
    outputs["iscp"] = replace(outputs["iscp"], searched=every)
    outputs["one"] = replace(outputs["one"], searched=labels != 1)
    changed = cascade(subject, outputs)
    rows = changed.tables["pattern_cascade"]
    assert [row["success"] == "" for row in rows] == [True] * 3 + [False, True, False] + [False] * 3
    assert [row["success"] == "" for row in rows] == [row["no_pattern"] == "" for row in rows]
    name = "pattern_cascade/iscp"
    assert f"{name}/0/success" not in changed.metrics
    assert f"{name}/0/iou" in changed.metrics
    mean = fmean([rows[3]["success"], rows[5]["success"]])
    assert changed.metrics[f"{name}/1/success"] == pytest.approx(mean)
    assert list(changed.figures) == ["pattern_cascade"]


def test_a_cascade_on_other_canvases_is_refused(subject):
    outputs = sources(subject)
    del outputs["all"]
    outputs["one"] = replace(outputs["one"], canvases=outputs["one"].canvases + 0.1)
    with pytest.raises(ValueError, match="set canvas_network of such a method to expert"):
        cascade(subject, outputs)


def plan(subject, **explains):
    leaves = dict.fromkeys(explains, Patterns)
    names = list(explains)
    return Plan(data=subject.data, methods=names, held_out=0, leaves=leaves, explains=explains)


@pytest.mark.parametrize(
    ("explains", "message"),
    [
        ({"iscp": "expert"}, "no method of this study searches any: add some"),
        ({"other": "expert", "one": "redrawn/1"}, "source is 'iscp', which is no method"),
        ({"iscp": "redrawn", "one": "redrawn/1"}, "source is 'iscp', which is no method"),
    ],
)
def test_a_study_without_a_cascade_is_refused(subject, explains, message):
    evaluation = PatternCascade(source="iscp", size=0.25, images=None)
    with pytest.raises(ValueError, match=message):
        evaluation.check(plan(subject, **explains))
    evaluation.check(plan(subject, iscp="expert", one="redrawn/1"))


def test_more_layers_than_the_network_has_are_refused(subject):
    networks = {"network": subject.factory}
    for kind, valid in (("redrawn", True), ("redrawn/2", True), ("redrawn/3", False)):
        study = replace(plan(subject, iscp="expert", one=kind), networks=networks)
        if valid:
            study.require_explained(["expert"])
        else:
            message = r"one.explains is 'redrawn/3', .* has 2 layers with weights: .*redrawn/2"
            with pytest.raises(ValueError, match=message):
                study.require_explained(["expert"])
