"""New networks trained on explanations alone."""

import math

import pytest
import torch
from support.builders import BlobsWithoutTraining, image_data
from support.distillation import inner

from cwx.data.samples import draw_per_class
from cwx.evaluations.from_scratch import FIRST_SEED, FromScratch
from cwx.explanations.images import Explanations
from cwx.training.plan import Plan


def from_scratch(**changes):
    settings = {"inner": inner(), "steps": 60, "rates": [0.3], "seeds": 2, "images": None}
    return FromScratch(**{**settings, **changes})


def real_images(subject, per_class):
    train = draw_per_class(subject.data.splits.train, per_class)
    return Explanations(subject.data.normalization.from_bytes(train.images), train.labels)


def test_the_real_images_themselves_reach_the_accuracy_of_real_images(subject):
    outcome = from_scratch()(subject, {"same": real_images(subject, 2)})
    assert outcome.metrics["from_scratch/same"] == outcome.metrics["from_scratch/real"]
    assert outcome.metrics["from_scratch/real"] > 0.8


def test_images_of_wrong_classes_teach_wrong_classes(subject):
    images = real_images(subject, 2)
    wrong = Explanations(images.images, (images.labels + 1) % 3)
    assert from_scratch()(subject, {"wrong": wrong}).metrics["from_scratch/wrong"] < 0.2


def test_the_best_rate_is_reported_and_every_rate_is_in_the_table(subject):
    outcome = from_scratch(rates=[1e-6, 0.3])(subject, {"same": real_images(subject, 2)})
    by_rate = {
        row["rate"]: row for row in outcome.tables["from_scratch"] if row["source"] == "real"
    }
    assert set(by_rate) == {1e-6, 0.3}
    assert by_rate[1e-6]["accuracy"] < by_rate[0.3]["accuracy"]
    assert outcome.metrics["from_scratch/real"] == by_rate[0.3]["accuracy"]
    assert by_rate[0.3]["networks"] == 2


@pytest.mark.filterwarnings("ignore")
def test_a_rate_at_which_networks_diverge_has_no_accuracy(subject, caplog):
    """And not that of the first class."""
    images = {"same": real_images(subject, 2)}
    outcome = from_scratch(rates=[0.3, 1e30])(subject, images)
    accuracies = {row["rate"]: row["accuracy"] for row in outcome.tables["from_scratch"]}
    assert accuracies[1e30] == ""
    assert outcome.metrics["from_scratch/same"] == accuracies[0.3]
    assert "networks diverge at the learning rate 1e+30" in caplog.text
    diverged = from_scratch(rates=[1e30])(subject, images)
    assert math.isnan(diverged.metrics["from_scratch/same"])


def test_the_new_networks_have_other_weights_than_the_experts(subject):
    weights = [next(subject.network(seed).parameters()) for seed in (0, FIRST_SEED)]
    assert not torch.equal(*weights)


def test_nothing_to_compare_with_is_refused(subject):
    plan = Plan(data=subject.data, methods=["a"], held_out=0)
    from_scratch().check(plan)
    data = image_data(BlobsWithoutTraining())
    with pytest.raises(ValueError, match="the data have none"):
        from_scratch().check(Plan(data=data, methods=["a"], held_out=0))
