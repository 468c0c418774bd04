"""Attention within a pattern, before and after it is attached."""

from dataclasses import replace

import pytest
import torch

from cwx.evaluations.patterns import attention as module
from cwx.evaluations.patterns.attention import Attention, AttentionShift, fractions_within
from cwx.evaluations.patterns.predictive_power import PredictivePower
from cwx.evaluations.patterns.selection import Candidate
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import Patterns
from cwx.networks.gradcam import grad_cam
from cwx.training.plan import Plan


def columns():
    """Two canvases a class: a black one, and one that is bright in the column of the class."""
    masks, images = torch.zeros(6, 4, 4), torch.zeros(6, 2, 4, 4)
    for label in range(3):
        images[2 * label + 1, :, :, label] = 1
        masks[2 * label : 2 * label + 2, :, label] = 1
    searched = torch.zeros(24, dtype=torch.bool)
    searched[::3] = True
    return Patterns(
        explains="expert",
        masks=masks,
        canvases=images,
        labels=torch.arange(3).repeat_interleave(2),
        searched=searched,
    )


def attention(**settings):
    chosen = {"source": "iscp", "size": 0.25, "images": 4, "layer": None}
    return Attention(**{**chosen, **settings})


@pytest.fixture(scope="module")
def outcome(looking):
    return attention()(looking, {"iscp": columns()})


def test_fractions_of_known_maps():
    maps = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[2.0, 2.0], [2.0, 2.0]], [[0.0, 0], [0, 0]]])
    mask = torch.tensor([[False, True], [False, True]])
    fractions = fractions_within(maps, mask)
    assert fractions[:2].tolist() == [0.75, 0.5]
    assert fractions[2].isnan()


def test_attention_moves_to_the_attached_pattern(outcome):
    metrics = outcome.metrics
    assert metrics["attention/iscp/by_area"] == 0.25
    # A white column counts five times as much as the others, of which each class's own is bright.
    assert metrics["attention/iscp/after"] > 0.7 > 0.6 > metrics["attention/iscp/before"]
    assert set(outcome.figures) == {"attention"}


def test_empty_attention_maps_are_left_out(looking):
    patterns = replace(columns(), explains="dark")
    dark = looking.first_network("expert")
    dark.slope.neg_()
    outcome = attention()(
        replace(looking, evaluation_networks={"dark": [dark]}), {"iscp": patterns}
    )
    assert {(row["before"], row["empty_before"]) for row in outcome.tables["attention"]} == {
        ("", 4)
    }
    assert not outcome.metrics


def test_before_and_after_are_means_over_the_same_images_and_classes():
    """Of a class of four images, two have attention before and after; of another, none."""
    mask = torch.tensor([[True, False]])
    maps = torch.tensor([[[3.0, 1.0]], [[1.0, 1.0]], [[0.0, 0.0]], [[1.0, 3.0]]])
    after = torch.tensor([[[4.0, 0.0]], [[0.0, 0.0]], [[1.0, 1.0]], [[1.0, 1.0]]])
    rows = []
    for label, before in enumerate((maps, torch.zeros_like(maps))):
        candidate = Candidate(
            label=label, canvas=0, tied=0, attach=lambda images: images, picture=maps[0], mask=mask
        )
        images = torch.zeros(4, 1, 1, 2)
        shift = AttentionShift(
            candidate=candidate, images=images, with_pattern=images, before=before, after=after
        )
        rows.append(module._row(shift, ["a", "b"]))
    assert (rows[0]["before"], rows[0]["after"]) == (0.5, 0.75)
    assert (rows[0]["empty_before"], rows[0]["empty_after"]) == (1, 1)
    assert (rows[1]["before"], rows[1]["after"]) == ("", "")
    metrics = module._metrics("iscp", rows)
    assert metrics == {f"attention/iscp/{k}": rows[0][k] for k in ("before", "after", "by_area")}


def test_rows_equal_the_formula_image_by_image(looking, outcome):
    data, patterns = looking.data, columns()
    network = looking.trained_network(looking.trajectories[0])
    for label, row in enumerate(outcome.tables["attention"]):
        assert row["class"] == data.classes[label]
        others = (data.splits.test.labels != label) & ~patterns.searched
        indices = others.nonzero()[:, 0]
        chosen = indices[[i * len(indices) // 4 for i in range(4)]]
        images = data.splits.test.images[chosen].float() / 255
        mask = patterns.masks[2 * label] > 0
        carrying = torch.where(mask, patterns.canvases[2 * label + row["canvas"]], images)
        for when, unit in (("before", images), ("after", carrying)):
            fractions = []
            for image in data.normalization.normalize(unit):
                (values,) = grad_cam(network, network.features, image[None], torch.tensor([label]))
                if values.any():
                    fractions.append(float(values[mask].sum() / values.sum()))
            assert row[f"empty_{when}"] == 4 - len(fractions)
            if fractions:
                assert row[when] == pytest.approx(sum(fractions) / len(fractions), rel=1e-5)
            else:
                assert row[when] == ""
        assert row["images"] == 4


def test_the_best_pattern_is_that_of_predictive_power(looking, outcome):
    power = PredictivePower(sizes=[0.25], gammas=[], images=None, canvas_choice="lowest_loss")(
        looking, {"iscp": columns()}
    )
    best = [row["canvas"] for row in power.tables["predictive_power"]]
    assert [row["canvas"] for row in outcome.tables["attention"]] == best == [1, 1, 1]


def test_any_image_is_used_if_the_search_used_none(looking):
    patterns = replace(columns(), searched=torch.zeros(24, dtype=torch.bool))
    outcome = attention(images=99)(looking, {"iscp": patterns})
    assert [row["images"] for row in outcome.tables["attention"]] == [16] * 3


def test_images_of_the_search_are_never_used(looking):
    labels = looking.data.splits.test.labels
    patterns = replace(columns(), searched=labels != 1)
    outcome = attention(images=99)(looking, {"iscp": patterns})
    rows = outcome.tables["attention"]
    assert [row["images"] for row in rows] == [8, 0, 8]
    assert {rows[1][column] for column in ("before", "after", "by_area", "empty_after")} == {""}
    values = [row["after"] for row in rows if row["after"] != ""]
    assert outcome.metrics["attention/iscp/after"] == pytest.approx(sum(values) / len(values))
    assert set(outcome.figures) == {"attention"}
    every = replace(patterns, searched=torch.ones(24, dtype=torch.bool))
    nothing = attention()(looking, {"iscp": every})
    assert not nothing.metrics
    assert not nothing.figures


def plan(subject, **leaves):
    return Plan(data=subject.data, methods=list(leaves), held_out=0, leaves=leaves)


def test_bad_settings_and_studies_are_refused(looking, subject):
    attention().check(plan(subject, iscp=Patterns))
    with pytest.raises(ValueError, match="source is 'x', but .* makes patterns: set it to one of"):
        attention(source="x").check(plan(subject, iscp=Patterns, distill=Explanations))
    with pytest.raises(ValueError, match=r"set it to a mask search, such as method=\[iscp\]"):
        attention(source="distill").check(plan(subject, distill=Explanations))
    whole = replace(plan(looking, iscp=Patterns), networks={"network": looking.factory})
    attention().check(whole)
    with pytest.raises(
        ValueError, match="attention.layer is 'x', which is no layer of ColumnClassifier"
    ):
        attention(layer="x").check(whole)
    with pytest.raises(ValueError, match="a pattern of 0.001 of 4x4 pixels"):
        attention(size=0.001).check(plan(subject, iscp=Patterns))
    searched = replace(plan(subject, iscp=Patterns), searched={"iscp": 1.0})
    with pytest.raises(ValueError, match=r"attention\.source is 'iscp', .*searched=1 uses all 24"):
        attention().check(searched)
    with pytest.raises(ValueError, match="evaluation.attention.images is 0"):
        attention(images=0)
    with pytest.raises(ValueError, match="evaluation.attention.layer is 'x'.*give one such as"):
        attention(layer="x")(looking, {"iscp": columns()})
    with pytest.raises(ValueError, match="no layer of MLP"):
        attention()(subject, {"iscp": columns()})
