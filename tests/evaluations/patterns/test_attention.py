"""Attention within a pattern, before and after it is attached."""

from dataclasses import replace

import pytest
import torch

from cwx.evaluations.patterns.attention import Attention, shares_within
from cwx.evaluations.patterns.predictive_power import PredictivePower
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


def test_shares_of_known_maps():
    maps = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[2.0, 2.0], [2.0, 2.0]], [[0.0, 0], [0, 0]]])
    mask = torch.tensor([[False, True], [False, True]])
    found = shares_within(maps, mask)
    assert found[:2].tolist() == [0.75, 0.5]
    assert found[2].isnan()


def test_attention_goes_to_what_is_attached(outcome):
    metrics = outcome.metrics
    assert metrics["attention/iscp/by_area"] == 0.25
    # A white column counts five times as much as the others, of which each class's own is bright.
    assert metrics["attention/iscp/after"] > 0.7 > 0.6 > metrics["attention/iscp/before"]
    assert set(outcome.figures) == {"attention"}


def test_images_without_attention_are_left_out(looking):
    found = replace(columns(), explains="dark")
    dark = looking.explained("expert")
    dark.slope.neg_()
    outcome = attention()(replace(looking, evaluation_networks={"dark": [dark]}), {"iscp": found})
    assert {(row["before"], row["empty_before"]) for row in outcome.tables["attention"]} == {
        ("", 4)
    }
    assert set(outcome.metrics) == {"attention/iscp/by_area"}


def test_a_row_is_what_the_formula_gives_image_by_image(looking, outcome):
    data, found = looking.data, columns()
    network = looking.trained(looking.trajectories[0])
    for label, row in enumerate(outcome.tables["attention"]):
        assert row["class"] == data.classes[label]
        others = (data.splits.test.labels != label) & ~found.searched
        indices = others.nonzero()[:, 0]
        chosen = indices[[i * len(indices) // 4 for i in range(4)]]
        images = data.splits.test.images[chosen].float() / 255
        mask = found.masks[2 * label] > 0
        carrying = torch.where(mask, found.canvases[2 * label + row["canvas"]], images)
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


def test_the_pattern_is_the_one_whose_power_counts(looking, outcome):
    power = PredictivePower(sizes=[0.25], images=None)(looking, {"iscp": columns()})
    best = [row["canvas"] for row in power.tables["power"]]
    assert [row["canvas"] for row in outcome.tables["attention"]] == best == [1, 1, 1]


def test_where_everything_was_searched_on_any_image_serves(looking):
    found = columns()
    for searched in (torch.ones(24, dtype=torch.bool), torch.zeros(24, dtype=torch.bool)):
        whole = replace(found, searched=searched)
        outcome = attention(images=99)(looking, {"iscp": whole})
        assert [row["images"] for row in outcome.tables["attention"]] == [16] * 3


def plan(subject, **leaves):
    return Plan(data=subject.data, methods=list(leaves), held_out=0, leaves=leaves)


def test_what_cannot_be_measured_is_refused(looking, subject):
    attention().check(plan(subject, iscp=Patterns))
    with pytest.raises(
        ValueError, match="source is 'x', of which .* no patterns: set it to one of"
    ):
        attention(source="x").check(plan(subject, iscp=Patterns, distill=Explanations))
    with pytest.raises(ValueError, match=r"set it to a mask search, such as method=\[iscp\]"):
        attention(source="distill").check(plan(subject, distill=Explanations))
    whole = replace(plan(looking, iscp=Patterns), networks={"network": looking.factory})
    attention().check(whole)
    with pytest.raises(ValueError, match="attention.layer is 'x', which is no layer of Looking"):
        attention(layer="x").check(whole)
    with pytest.raises(ValueError, match="a pattern of 0.001 of 4x4 pixels"):
        attention(size=0.001).check(plan(subject, iscp=Patterns))
    with pytest.raises(ValueError, match="evaluation.attention.images is 0"):
        attention(images=0)
    with pytest.raises(ValueError, match="evaluation.attention.layer is 'x'.*give one such as"):
        attention(layer="x")(looking, {"iscp": columns()})
    with pytest.raises(ValueError, match="no layer of MLP"):
        attention()(subject, {"iscp": columns()})
