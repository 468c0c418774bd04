import math
from dataclasses import replace

import pytest
import torch
from support.builders import BlobsWithoutTraining, image_data

from cwx.evaluations.discriminative import Discriminative, scores
from cwx.evaluations.diversity import Diversity, pairwise
from cwx.evaluations.gallery import Gallery
from cwx.evaluations.outcome import baselines, mean_over_networks
from cwx.explanations.images import Explanations


@pytest.fixture(scope="module")
def sources(subject):
    return {"real-images": subject.real_images(2), "first": subject.real_images(1)}


def test_scores_of_known_logits():
    images = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 4.0]])
    row = scores(torch.nn.Identity(), Explanations(images, torch.tensor([0, 1])))
    assert row["accuracy"] == 0.5
    assert row["margin"] == pytest.approx((1 - 1) / 2)
    expected = images.softmax(1)[[0, 1], [0, 1]].mean().item()
    assert row["confidence"] == pytest.approx(expected)


def test_discriminative_measures_every_source_with_every_network(subject, sources):
    metrics = Discriminative()(subject, sources).metrics
    assert set(metrics) == {
        f"discriminative/{source}/{network}{value}"
        for value in ("", "/confidence", "/margin")
        for source in (
            "real-images",
            "real-images-projected",
            "first",
            "first-projected",
            "real",
            "train",
            "mean",
        )
        for network in ("expert", "held-out")
    }
    assert metrics["discriminative/real/expert"] == 1


def test_discriminative_averages_the_networks_of_one_name(subject, sources):
    outcome = Discriminative()(subject, sources)
    (row,) = (
        row
        for row in outcome.tables["discriminative"]
        if row["network"] == "expert" and row["source"] == "first"
    )
    per_network = [
        scores(subject.trained_network(t), sources["first"]) for t in subject.trajectories
    ]
    assert row["networks"] == len(per_network) == 2
    for name in ("accuracy", "confidence", "margin"):
        values = torch.tensor([float(s[name]) for s in per_network], dtype=torch.float64)
        assert row[name] == pytest.approx(values.mean().item())
        assert row[f"{name}_std"] == pytest.approx(values.std().item())
    assert outcome.metrics["discriminative/first/expert"] == row["accuracy"]
    assert outcome.metrics["discriminative/first/expert/margin"] == row["margin"]


def test_rows_are_averaged_over_replicates_only():
    rows = [
        {"network": "a", "replicate": n, "attack": attack, "accuracy": value}
        for n, attack, value in ((0, "x", 1.0), (0, "y", 0.5), (1, "x", 0.0), (1, "y", 0.5))
    ] + [{"network": "b", "replicate": 0, "attack": "x", "accuracy": 0.25}]
    means = mean_over_networks(rows, values=("accuracy",))
    assert [tuple(row.values()) for row in means] == [
        ("a", "x", 2, 0.5, pytest.approx(0.5**0.5)),
        ("a", "y", 2, 0.5, 0.0),
        ("b", "x", 1, 0.25, ""),
    ]


def test_pairwise_distance_and_correlation_of_known_images():
    pair = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(2, 1, 1, 2)
    assert pairwise(pair) == pytest.approx((1, -1))
    assert pairwise(pair[[0, 0]]) == pytest.approx((0, 1))


def test_diversity_needs_two_images_per_class(subject, sources):
    metrics = Diversity()(subject, sources).metrics
    assert "diversity/first/distance" not in metrics
    assert metrics["diversity/real-images/distance"] > 0


def test_the_gallery_reports_the_raw_range(subject, sources):
    outcome = Gallery(titles={"first": "$title"}, baselines=["real", "mean"])(subject, sources)
    images = sources["first"].images
    assert outcome.metrics["gallery/range/first/max"] == images.max().item()
    assert set(outcome.figures) == {"gallery"}


def test_without_training_images_test_images_are_the_only_baseline(subject, sources):
    alone = replace(subject, data=image_data(BlobsWithoutTraining()))
    available = baselines(alone, sources)
    assert list(available) == ["real"]
    assert available["real"].labels.tolist() == [0, 0, 2, 2]
    gallery = Gallery(titles={}, baselines=["real", "train", "mean"])(alone, sources)
    assert list(gallery.figures) == ["gallery"]
    metrics = Discriminative()(alone, sources).metrics
    assert {name.split("/")[1] for name in metrics} == {
        *sources,
        *(f"{name}-projected" for name in sources),
        "real",
    }
    diversity = Diversity()(alone, sources).metrics
    assert {name.split("/")[1] for name in diversity} == {"real-images", "real"}


def test_the_gallery_refuses_an_unknown_baseline():
    with pytest.raises(ValueError, match="baselines has 'noise': give some of real, train, mean"):
        Gallery(titles={}, baselines=["real", "noise"])


def test_values_that_are_not_finite_have_no_standard_deviation():
    rows = [
        {"network": "a", "replicate": n, "power": value} for n, value in ((0, 1.0), (1, math.inf))
    ]
    (row,) = mean_over_networks(rows, values=("power",))
    assert (row["power"], row["power_std"]) == (math.inf, "")
