"""Grad-CAM's regions as patterns of networks whose attention is known."""

import pytest
import torch
from support.builders import ColumnClassifier, image_data, small_mlp

from cwx.evaluations.patterns.predictive_power import PredictivePower
from cwx.functional.canvas_sampling import negative, positive
from cwx.functional.canvas_sampling import random as any_image
from cwx.methods.gradcam import GradCamRegions
from cwx.networks.gradcam import attention_maps
from cwx.training.plan import Plan
from cwx.training.stages import Fittable


def regions(subject, **settings):
    chosen = {
        "seed": 3,
        "stage": "gradcam",
        "explains": "expert",
        "classes": None,
        "canvas": positive,
        "canvases": 2,
        "layer": None,
    }
    return GradCamRegions(subject=subject, **{**chosen, **settings})


def test_masks_are_maps_scaled_to_reach_one(looking):
    found = regions(looking).explanations()
    assert found.masks.shape == (6, 4, 4)
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert not found.searched.any()
    assert len(found.searched) == 24
    network = looking.trained_network(looking.trajectories[0])
    images = looking.data.normalization.normalize(found.canvases)
    maps = attention_maps(network, network.features, images, found.labels, 7)
    assert maps.amax((1, 2)).min() > 0
    for mask, values in zip(found.masks, maps, strict=True):
        torch.testing.assert_close(mask, values / values.max())
        assert mask.max() == 1


def test_a_map_of_zeros_stays(looking):
    made = regions(looking)
    # Nothing speaks for a class whose logits fall with all that is there.
    made.network.slope.neg_()
    made.canvas = any_image
    assert not made.explanations().masks.any()


def test_it_is_not_fitted(looking):
    assert not isinstance(regions(looking), Fittable)


def test_the_power_of_the_most_attended_pixels_is_measured(looking):
    found = regions(looking).explanations()
    outcome = PredictivePower(
        sizes=[0.25, 0.5], gammas=[], images=None, canvas_choice="lowest_loss"
    )(looking, {"gradcam": found})
    metrics = outcome.metrics
    # Nothing was searched on: all test images are outside.
    assert (
        metrics["predictive_power/power/gradcam/0.5"]
        == metrics["predictive_power/whole/gradcam/0.5"]
        > 0
    )
    cut = found.cut(0.25)
    assert cut.masks.sum((1, 2)).tolist() == [4] * 6
    for mask, values in zip(cut.masks, found.masks, strict=True):
        assert values[mask].min() >= values[~mask].max() - 1e-4


def test_settings_choose(looking):
    found = regions(looking, classes=["right"], canvases=1, explains="held-out", layer="features.0")
    assert found.layer is found.network.features[0]
    assert not torch.equal(found.network.slope, regions(looking).network.slope)
    held_out = looking.trained_network(looking.held_out[0])
    assert torch.equal(found.network.slope, held_out.slope)
    patterns = found.explanations()
    assert patterns.explains == "held-out"
    assert patterns.labels.tolist() == [2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "features.9"}, "method.gradcam.layer is 'features.9'.*give one such as feat"),
        ({"classes": ["up"]}, "up"),
        ({"explains": "nothing"}, "no network called 'nothing'"),
    ],
)
def test_impossible_settings_are_refused(settings, message, looking):
    with pytest.raises(ValueError, match=message):
        regions(looking, **settings)


def test_what_the_network_lacks_is_refused(subject, looking):
    with pytest.raises(ValueError, match="no layer of MLP"):
        regions(subject)
    with pytest.raises(ValueError, match="gradcam finds no canvas for any class"):
        regions(looking, canvas=negative).explanations()


def test_a_class_without_test_images_is_refused_before_anything_is_trained():
    data = image_data()
    test = data.splits.test
    object.__setattr__(data.splits, "test", test.at(test.labels != 1))
    plan = Plan(data=data, methods=["gradcam"], held_out=0)
    with pytest.raises(ValueError, match=r"no image of class 'middle'.*method.gradcam.classes=\["):
        GradCamRegions.check(plan, stage="gradcam", classes=None, layer=None)


def test_a_layer_that_is_none_is_refused_before_anything_is_trained(data):
    plan = Plan(
        data=data,
        methods=["gradcam"],
        held_out=0,
        networks={"network": small_mlp, "looking": ColumnClassifier},
        explains={"gradcam": "looking", "other": "expert"},
    )
    GradCamRegions.check(plan, stage="gradcam", classes=None, layer=None)
    with pytest.raises(
        ValueError, match="gradcam.layer is 'x', which is no layer of ColumnClassifier"
    ):
        GradCamRegions.check(plan, stage="gradcam", classes=None, layer="x")
    with pytest.raises(ValueError, match="no layer of MLP gives maps"):
        GradCamRegions.check(plan, stage="other", classes=None, layer=None)
