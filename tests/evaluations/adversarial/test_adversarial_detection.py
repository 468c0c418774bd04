from dataclasses import replace

import pytest
import torch
from support import references
from support.attacked import adversarial_set, untouched
from support.builders import BlobsWithoutTraining, image_data, small_convnet
from support.studies import DETECTION
from torch.distributions import MultivariateNormal

from cwx.evaluations.adversarial.adversarial_detection import (
    POINTS,
    detection_auroc,
)
from cwx.functional.class_gaussians import Diagonal, LedoitWolf, Tied
from cwx.functional.representation_distance import flat, mean_over_positions
from cwx.training.plan import Plan


def measure(subject, adversarial, **settings):
    evaluation = DETECTION(**settings)
    return evaluation(replace(subject, adversarial=adversarial), {})


def noise(data, folder):
    """Random images, unlike the training images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (9, 2, 4, 4), generator=generator).to(torch.uint8)
    originals = torch.arange(9)
    targets = (data.splits.test.labels[originals] + 1) % 3
    return adversarial_set(data, folder, originals, targets, images)


def literal(subject, network, adversarial):
    """The AUC by Gaussians of torch with a covariance that all classes share."""
    data, train = subject.data, subject.data.splits.train

    def represent(images):
        maps = network.features[:2](data.normalization.from_bytes(images))
        return maps.mean((2, 3)).double(), network(data.normalization.from_bytes(images)).argmax(1)

    features, _ = represent(train.images)
    means = [features[train.labels == c].mean(0) for c in range(3)]
    residuals = features - torch.stack(means)[train.labels]
    covariance = residuals.T @ residuals / len(residuals)
    covariance += 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance))

    def negative_log_likelihoods(images):
        return [
            -MultivariateNormal(means[c], covariance).log_prob(f).item()
            for f, c in zip(*represent(images), strict=True)
        ]

    attacked = adversarial.at(torch.arange(len(adversarial)))
    return references.area_under_roc(
        negative_log_likelihoods(data.splits.test.images), negative_log_likelihoods(attacked)
    )


def test_the_auc_equals_its_definition(convolutional, tmp_path):
    adversarial = noise(convolutional.data, tmp_path)
    outcome = measure(convolutional, adversarial)
    for kind, trajectories in (
        ("expert", convolutional.trajectories),
        ("fine-tuned", convolutional.fine_tuned),
    ):
        per_network = [
            literal(convolutional, convolutional.trained_network(t), adversarial)
            for t in trajectories
        ]
        auc = outcome.metrics[f"adversarial_detection/{kind}/auc"]
        assert auc == pytest.approx(sum(per_network) / 2, abs=1e-4)
        assert auc > 0.6
    assert len(outcome.tables["adversarial_detection"]) == 2
    assert len(outcome.tables["adversarial_detection_networks"]) == 4
    assert set(outcome.figures) == {"adversarial_detection"}


@pytest.mark.parametrize("covariance", [Tied(ridge=1e-6), Diagonal(ridge=1e-6), LedoitWolf()])
@pytest.mark.parametrize("pooling", [flat, mean_over_positions])
def test_equal_sets_have_chance_auc(convolutional, tmp_path, covariance, pooling):
    adversarial = untouched(convolutional.data, tmp_path)
    metrics = measure(convolutional, adversarial, covariance=covariance, pooling=pooling).metrics
    assert set(metrics) == {
        f"adversarial_detection/{kind}/auc" for kind in ("expert", "fine-tuned")
    }
    # Batches of other sizes may round otherwise.
    assert list(metrics.values()) == pytest.approx([0.5, 0.5], abs=0.05)


def test_extreme_likelihoods_keep_their_order():
    real, adversarial = torch.tensor([-1e3, -2e3, -5e3]).double(), torch.tensor([-3e3, -9e3])
    auc, points = detection_auroc(real, adversarial)
    assert auc == pytest.approx(5 / 6)
    assert auc == pytest.approx(references.area_under_roc([1e3, 2e3, 5e3], [3e3, 9e3]))
    assert (points[0]["false_positive_rate"], points[0]["true_positive_rate"]) == (0, 0)
    assert (points[-1]["false_positive_rate"], points[-1]["true_positive_rate"]) == (1, 1)


def test_equal_likelihoods_have_an_auc_of_one_half():
    auc, points = detection_auroc(torch.ones(4), torch.ones(3))
    assert auc == 0.5
    assert len(points) == 2


def test_a_long_curve_is_thinned_with_its_ends():
    generator = torch.Generator().manual_seed(0)
    real, adversarial = torch.randn(2, 900, generator=generator)
    auc, points = detection_auroc(real, adversarial - 1)
    assert len(points) == POINTS
    expected = references.area_under_roc((-real).tolist(), (1 - adversarial).tolist())
    assert auc == pytest.approx(expected, abs=1e-5)
    for name in ("false_positive_rate", "true_positive_rate"):
        values = [point[name] for point in points]
        assert values == sorted(values)
        assert (values[0], values[-1]) == (0, 1)
    area = sum(
        (b["false_positive_rate"] - a["false_positive_rate"])
        * (b["true_positive_rate"] + a["true_positive_rate"])
        / 2
        for a, b in zip(points, points[1:], strict=False)
    )
    assert area == pytest.approx(auc, abs=0.01)


def plan(data, **changes):
    return Plan(data=data, methods=[], held_out=0, networks={"network": small_convnet}, **changes)


def test_bad_settings_and_studies_are_refused(data):
    def check(plan, **settings):
        DETECTION(**settings).check(plan)

    check(plan(data))
    with pytest.raises(ValueError, match="adversarial_detection needs adversarial images"):
        check(plan(data, adversarial=False))
    with pytest.raises(ValueError, match="training images, and class 'left' has none: choose data"):
        check(plan(image_data(BlobsWithoutTraining())))
    with pytest.raises(ValueError, match="adversarial_detection.layer is 'x', which is no layer"):
        check(plan(data), layer="x")
    with pytest.raises(ValueError, match="would take 48 GiB for 3 classes of 5 features: choose"):
        check(plan(data), covariance=Large())


class Large(Tied):
    def __init__(self):
        super().__init__(ridge=0.0)

    def size(self, classes, features):
        return 6 * 2**30
