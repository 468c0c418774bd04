from dataclasses import replace
from statistics import mean, stdev

import pytest
import torch
from support import references
from support.attacked import adversarial_set, swapped, untouched
from support.builders import (
    BlobsWithoutTraining,
    ColumnClassifier,
    image_data,
    small_convnet,
    small_mlp,
)
from support.studies import CONTRIBUTIONS

from cwx.data.splits import Splits
from cwx.evaluations.adversarial.adversarial_detection import AdversarialDetection
from cwx.evaluations.contributions.evaluation import Contributions
from cwx.evaluations.contributions.reference import SAMPLE, reference_indices, reference_units
from cwx.functional.class_gaussians import Tied
from cwx.functional.representation_distance import mean_over_positions
from cwx.functional.top_activations import spatial_maximum
from cwx.training.plan import Plan

PLAIN = {**CONTRIBUTIONS.keywords, "images": 6}
# The evaluated ones of 24 test images.
INDICES = [0, 4, 8, 12, 16, 20]
ABLATIONS = ("zero", "mean", "resample")
ORDERS = ("greedy", "contribution", "difference", "activation", "random")


def measure(subject, **settings):
    return Contributions(**{**PLAIN, **settings})(subject, {})


def rows_of(outcome, table, **values):
    return [
        row
        for row in outcome.tables[table]
        if all(row[name] == value for name, value in values.items())
    ]


class LinearHead:
    """A subject's first network, as maps after the ReLU and the layers behind them."""

    def __init__(self, subject, kind="expert"):
        self.subject, self.data = subject, subject.data
        self.network = subject.first_network(kind)

    def maps(self, images):
        return self.network.features[:2](self.data.normalization.from_bytes(images)).detach()

    def logits(self, maps):
        pooled = self.network.features[2](maps)
        return self.network.classifier(pooled.flatten(1)).detach().double()


@pytest.fixture
def attacked(convolutional, tmp_path):
    return replace(convolutional, adversarial=swapped(convolutional.data, tmp_path))


def test_contributions_equal_a_loop_over_units(attacked):
    """By zero and by mean ablation, with the mean of the images that are not evaluated."""
    outcome = measure(attacked)
    head, test = LinearHead(attacked), attacked.data.splits.test
    others = [i for i in range(24) if i not in INDICES]
    reference = head.maps(test.images[others]).mean(0)
    for kind, images in (
        ("test", test.images[INDICES]),
        ("adversarial", attacked.adversarial.at(torch.tensor(INDICES))),
    ):
        for ablation in ("zero", "mean"):
            sums = {"predicted": [], "true": [], "target": []}
            for index, maps in zip(INDICES, head.maps(images), strict=True):
                whole = head.logits(maps[None])[0]
                classes = {
                    "predicted": int(whole.argmax()),
                    "true": int(test.labels[index]),
                    "target": int(attacked.adversarial.targets[index]),
                }
                for role, label in classes.items():
                    own = []
                    for unit in range(5):
                        without = maps.clone()
                        without[unit] = 0 if ablation == "zero" else reference[unit]
                        own.append((whole[label] - head.logits(without[None])[0, label]).item())
                    sums[role].append(own)
            for role, of_images in sums.items():
                (*row,) = rows_of(
                    outcome, "contributions",
                    network="expert", kind=kind, ablation=ablation, logit=role,
                )  # fmt: skip
                if kind == "test" and role == "target":
                    assert not row
                    continue
                totals = [sum(own) for own in of_images]
                assert row[0]["total"] == pytest.approx(mean(totals), rel=1e-4, abs=1e-5)
                assert row[0]["total_std"] == pytest.approx(stdev(totals), rel=1e-4, abs=1e-5)
                supporting = [sum(max(c, 0) for c in own) for own in of_images]
                assert row[0]["supporting"] == pytest.approx(mean(supporting), rel=1e-4, abs=1e-5)
                opposing = [sum(min(c, 0) for c in own) for own in of_images]
                assert row[0]["opposing"] == pytest.approx(mean(opposing), rel=1e-4, abs=1e-5)
                highest = mean(max(own) for own in of_images)
                assert row[0]["largest"] == pytest.approx(highest, rel=1e-4, abs=1e-5)
                metric = f"contributions/expert/{kind}/{ablation}/{role}"
                assert outcome.metrics[metric] == row[0]["total"]


def test_resampled_units_are_those_of_other_images(looking):
    """Every reference image alike: resample, mean and the value itself are the same."""
    data = image_data()
    test = data.splits.test
    images = test.images.clone()
    others = [i for i in range(24) if i not in INDICES]
    images[others] = images[1].clone()
    data._splits = Splits(
        data.splits.train, type(test)(images, test.labels), data.splits.classes, None
    )
    outcome = measure(replace(looking, data=data), draws=3)
    for role in ("predicted", "true"):
        (mean_row,) = rows_of(outcome, "contributions", ablation="mean", logit=role)
        (resample_row,) = rows_of(outcome, "contributions", ablation="resample", logit=role)
        (zero_row,) = rows_of(outcome, "contributions", ablation="zero", logit=role)
        for column in ("total", "supporting", "opposing", "largest", "agreement"):
            assert resample_row[column] == pytest.approx(mean_row[column], rel=1e-4, abs=1e-6)
        assert zero_row["total"] != pytest.approx(mean_row["total"], rel=0.01)
        assert zero_row["agreement"] == pytest.approx(1)


def test_linear_contributions_are_the_logits(looking):
    """Each class's logit is the mean of its channel: the contribution is all of it."""
    outcome = measure(looking)
    network, data = looking.first_network("expert"), looking.data
    logits = network(data.normalization.from_bytes(data.splits.test.images[INDICES]))
    metrics = outcome.metrics
    expected = logits.amax(1).mean().item()
    assert metrics["contributions/expert/test/zero/predicted"] == pytest.approx(expected, rel=1e-5)
    (row,) = rows_of(outcome, "contributions", ablation="zero", logit="predicted")
    assert row["largest"] == pytest.approx(expected, rel=1e-5)
    # Without its only channel, every prediction flips.
    assert metrics["contributions/expert/test/flip/greedy"] == 1
    assert metrics["contributions/expert/test/flip/contribution"] == 1
    assert metrics["contributions/expert/test/flip/activation"] == 1
    assert metrics["contributions/expert/test/flip/random"] >= 1
    # The curve of that order falls at the first of three units, and rises there.
    rows = rows_of(outcome, "contributions_curves", order="contribution")
    assert [row["fraction"] for row in rows] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert rows[0]["deletion"] == pytest.approx(rows[-1]["insertion"])
    assert rows[1]["deletion"] < 1 / 3 < rows[1]["insertion"]
    assert rows[-1]["deletion"] == pytest.approx(1 / 3) == rows[0]["insertion"]


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_flips_and_areas_of_all_orders(attacked, ablation):
    outcome = measure(attacked, ablation=ablation)
    for network in ("expert", "fine-tuned"):
        for kind in ("test", "adversarial"):
            flips = rows_of(outcome, "contributions_flips", network=network, kind=kind)
            by_order = {row["order"]: row for row in flips}
            assert tuple(by_order) == ORDERS
            assert all(row["units"] == row["removed"] == 5 for row in flips)
            for row in flips:
                name = f"contributions/{network}/{kind}/flip/{row['order']}"
                assert outcome.metrics.get(name, "") == row["median"]
                assert 0 <= row["never"] <= 1
            areas = rows_of(outcome, "contributions_areas", network=network, kind=kind)
            area = {row["order"]: row for row in areas}
            assert area["contribution"]["deletion"] <= area["random"]["deletion"]
            assert area["contribution"]["insertion"] >= area["random"]["insertion"]


def test_a_greedy_limit_censors_predictions(attacked):
    outcome = measure(attacked, limit=1, networks=["expert"])
    (row,) = rows_of(outcome, "contributions_flips", kind="test", order="greedy")
    (full,) = rows_of(measure(attacked), "contributions_flips",
                      network="expert", kind="test", order="greedy")  # fmt: skip
    assert row["removed"] == 1
    assert row["never"] >= full["never"]
    assert row["median"] in (1, "")


class Constant(ColumnClassifier):
    """Its prediction does not depend on its maps."""

    def forward(self, images):
        return 0 * super().forward(images) + torch.tensor([0.0, 1, 0])


def test_a_prediction_that_never_flips(looking, tmp_path):
    subject = replace(looking, factory=Constant, adversarial=swapped(looking.data, tmp_path))
    outcome = measure(subject)
    assert not any("/flip/" in name for name in outcome.metrics)
    for row in outcome.tables["contributions_flips"]:
        assert (row["quarter"], row["median"], row["never"]) == ("", "", 1)
    assert outcome.metrics["contributions/expert/test/zero/predicted"] == 0
    # Without contributions there is no evidence, and all images are alike.
    assert outcome.metrics["contributions/expert/auc/contradiction"] == 0.5
    (row,) = rows_of(outcome, "contributions", kind="test", ablation="mean", logit="predicted")
    assert row["agreement"] == ""


class Tricked(ColumnClassifier):
    """Adds to the logit of each class that of the class before it, for images of odd pixels."""

    def forward(self, images):
        logits = super().forward(images)
        odd = (images[:, 0, 0, 0] > 0)[:, None]
        return torch.where(odd, logits.roll(1, 1), logits)


def test_units_of_other_classes_contradict(looking, tmp_path):
    """Adversarial images whose prediction rests on the channel of another class are detected."""
    data = looking.data
    test = data.splits.test
    images = test.images.clone()
    images[:, 0, 0, 0] = 255
    kept = test.images.clone()
    kept[:, 0, 0, 0] = 0
    quiet = image_data()
    quiet._splits = Splits(
        quiet.splits.train, type(test)(kept, test.labels), quiet.splits.classes, None
    )
    adversarial = adversarial_set(quiet, tmp_path, torch.arange(24), (test.labels + 1) % 3, images)
    subject = replace(looking, data=quiet, factory=Tricked, adversarial=adversarial)
    outcome = measure(subject)
    assert outcome.metrics["contributions/expert/auc/contradiction"] == 1
    assert outcome.metrics["contributions/expert/auc/permuted"] < 0.9
    (row,) = rows_of(outcome, "contributions_auc", score="contradiction", ablation="zero")
    assert row["misled"] == 1
    assert row["misled_adversarial"] == row["correct_test"] == 6
    assert "contributions_contradiction" in outcome.figures


def test_the_gaussian_is_that_of_the_detection(attacked):
    """With all adversarial images, its AUC is that of the other evaluation."""
    indices = torch.tensor(INDICES)
    subject = replace(attacked, fine_tuned=[], trajectories=attacked.trajectories[:1])
    outcome = measure(subject)
    detection = AdversarialDetection(
        networks=None, layer=None, before_nonlinearity=False,
        pooling=mean_over_positions, covariance=Tied(ridge=1e-6),
    )  # fmt: skip
    network = subject.first_network("expert")
    real, adversarial = detection._log_likelihoods(network, subject)
    expected = references.area_under_roc(
        (-real[indices]).tolist(), (-adversarial[indices]).tolist()
    )
    assert outcome.metrics["contributions/expert/auc/gaussian"] == pytest.approx(expected)


def test_unchanged_images_have_chance_auc(convolutional, tmp_path):
    subject = replace(convolutional, adversarial=untouched(convolutional.data, tmp_path))
    outcome = measure(subject)
    for row in outcome.tables["contributions_auc"]:
        assert row["auc"] == pytest.approx(0.5)
    scores = {row["score"] for row in outcome.tables["contributions_auc"]}
    assert scores == {
        "contradiction", "signed", "absolute", "difference", "permuted", "confidence", "gaussian"
    }  # fmt: skip


def numbers(outcome):
    return {
        (table, index, name): value
        for table, rows in outcome.tables.items()
        for index, row in enumerate(rows)
        for name, value in row.items()
        if isinstance(value, float)
    }


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_batch_size_changes_nothing(attacked, ablation):
    expected = measure(attacked, ablation=ablation, networks=["expert"])
    for size in (1, 64):
        data = image_data(batch_size=size)
        found = measure(replace(attacked, data=data), ablation=ablation, networks=["expert"])
        assert found.metrics == pytest.approx(expected.metrics, rel=1e-4, abs=1e-5)
        assert numbers(found) == pytest.approx(numbers(expected), rel=1e-4, abs=1e-5)


def test_the_draws_of_an_image_do_not_depend_on_the_others(attacked):
    read = _later(attacked).read
    reference = reference_units(
        read, attacked.data, torch.arange(5, 24),
        activation=spatial_maximum, fraction=0.2, device=torch.device("cpu"),
    )  # fmt: skip
    keys = [(0,), (1,), (4,)]
    together = reference.replacement("resample", 4, keys)
    assert together.shape == (3, 4, 5, *together.shape[3:])
    for key, own in zip(keys, together, strict=True):
        torch.testing.assert_close(reference.replacement("resample", 4, [key])[0], own)
    assert not torch.equal(together[0], together[1])
    # More draws than reference images: each once.
    assert reference.replacement("resample", 99, keys).shape[1] == 19 <= SAMPLE


def test_one_reference_image_is_enough(attacked):
    outcome = measure(attacked, images=23)
    assert {row["images"] for row in outcome.tables["contributions"]} == {23}


def test_one_image_has_no_deviations(attacked):
    outcome = measure(attacked, images=1)
    assert {row["total_std"] for row in outcome.tables["contributions"]} == {""}
    assert set(outcome.figures) == {"contributions_curves", "contributions_contradiction"}


def test_classes_without_test_or_training_images(attacked):
    """A class without test images is in no top images; without training there is no Gaussian."""
    data = image_data(BlobsWithoutTraining())
    outcome = measure(replace(attacked, data=data, adversarial=None), images=5)
    assert "contributions_auc" not in outcome.tables
    assert set(outcome.figures) == {"contributions_curves"}
    assert {row["kind"] for row in outcome.tables["contributions"]} == {"test"}


def test_without_training_images_there_is_no_gaussian(attacked, tmp_path):
    data = image_data(BlobsWithoutTraining())
    adversarial = untouched(data, tmp_path / "adversarial")
    outcome = measure(replace(attacked, data=data, adversarial=adversarial), images=5)
    assert not any(name.endswith("gaussian") for name in outcome.metrics)
    assert "contributions/expert/auc/contradiction" in outcome.metrics


def _later(subject):
    evaluation = Contributions(**PLAIN)
    network = subject.first_network("expert")
    return evaluation.layer.later_layers(network, subject.data.image_shape)


def plan(data, factory=small_convnet, adversarial=False):
    return Plan(
        data=data,
        methods=[],
        held_out=0,
        networks={"network": factory},
        kinds=["expert", "fine-tuned"],
        adversarial=adversarial,
    )


def test_bad_settings_are_refused(data):
    def check(its_data=data, factory=small_convnet, **settings):
        Contributions(**{**PLAIN, **settings}).check(plan(its_data, factory, adversarial=True))

    check()
    check(images=23)
    for settings, message in (
        ({"images": 0}, "contributions.images is 0: give 1 or more"),
        ({"images": 24}, "contributions.images takes all 24 test images, .* a smaller number"),
        ({"draws": 0}, "contributions.draws is 0"),
        ({"limit": 0}, "contributions.limit is 0"),
        ({"fraction": 0.0}, "contributions.fraction is 0.0: give a fraction above 0"),
        ({"layer": "x"}, "contributions.layer is 'x', which is no layer"),
        ({"networks": []}, "contributions.networks is empty"),
        ({"factory": small_mlp}, "no layer of MLP .* or leave evaluation.contributions out"),
        ({"sigma": 0.0}, "contributions.sigma: sigma is 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            check(**settings)


def test_references_are_the_images_that_are_not_evaluated(data):
    indices = reference_indices(data, torch.tensor([0, 23, 5]), "x")
    assert indices.tolist() == [i for i in range(24) if i not in (0, 5, 23)]
