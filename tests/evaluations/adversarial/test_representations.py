import logging
import math
from dataclasses import replace

import pytest
import torch
from support import references
from support.attacked import adversarial_set, swapped, untouched
from support.builders import Blobs, image_data, small_convnet, small_mlp

from cwx.data.splits import ImageSet, Splits
from cwx.evaluations.adversarial.representations import RealImages, Representations
from cwx.evaluations.memory_limit import STATISTICS_BYTES
from cwx.functional.representation_distance import flat, mean_over_positions
from cwx.training.plan import Plan

PLAIN = {
    "networks": None,
    "layer": None,
    "before_nonlinearity": False,
    "pooling": flat,
    "per_class": None,
}


def measure(subject, adversarial, **settings):
    evaluation = Representations(**{**PLAIN, **settings})
    return evaluation(replace(subject, adversarial=adversarial), {})


def representations(subject, network, images, pooling):
    """φ, computed without the evaluation."""
    normalized = subject.data.normalization.from_bytes(images)
    return pooling(network.features[:2](normalized)).detach()


def literal(subject, network, adversarial, pooling, indices):
    """r1 and r2 of every adversarial image; `indices` are the real images of a class."""
    test = subject.data.splits.test
    own = {
        c: representations(subject, network, test.images[p], pooling) for c, p in indices.items()
    }
    images = adversarial.at(torch.arange(len(adversarial)))
    attacked = representations(subject, network, images, pooling)
    return [
        references.distance_ratios(
            attacked[i].tolist(),
            next((k for k, p in enumerate(indices[label]) if p == original), -1),
            own[label].tolist(),
            own[target].tolist(),
        )
        for i, (label, target, original) in enumerate(
            zip(
                adversarial.labels.tolist(),
                adversarial.targets.tolist(),
                adversarial.originals.tolist(),
                strict=True,
            )
        )
    ]


@pytest.mark.parametrize("pooling", [flat, mean_over_positions])
@pytest.mark.parametrize("per_class", [None, 3])
def test_ratios_equal_the_formulas(convolutional, tmp_path, pooling, per_class):
    adversarial = swapped(convolutional.data, tmp_path)
    outcome = measure(convolutional, adversarial, pooling=pooling, per_class=per_class)
    count = per_class or 8
    indices = {c: [8 * c + i * 8 // count for i in range(count)] for c in range(3)}
    networks = {
        "expert": convolutional.trajectories,
        "fine-tuned": convolutional.fine_tuned,
    }
    for kind, trajectories in networks.items():
        ratios = [
            literal(convolutional, convolutional.trained_network(t), adversarial, pooling, indices)
            for t in trajectories
        ]
        for index, name in enumerate(("r1", "r2")):
            per_network = [[pair[index] for pair in pairs] for pairs in ratios]
            expected = sum(sum(values) / len(values) for values in per_network) / 2
            assert outcome.metrics[f"representations/{kind}/{name}"] == pytest.approx(
                expected, rel=1e-4
            )
        assert outcome.metrics[f"representations/{kind}/left_out"] == 0
    assert len(outcome.tables["representations_networks"]) == 4
    assert set(outcome.figures) == {"representations"}


def test_unchanged_images_have_ratios_of_one(convolutional, tmp_path):
    metrics = measure(convolutional, untouched(convolutional.data, tmp_path)).metrics
    assert metrics == {
        f"representations/{kind}/{name}": value
        for kind in ("expert", "fine-tuned")
        for name, value in (
            ("r1", pytest.approx(1, rel=1e-5)),
            ("r2", pytest.approx(1, rel=1e-5)),
            ("left_out", 0),
        )
    }


def test_images_swapped_for_the_target_class_have_r1_above_and_r2_below_one(
    convolutional, tmp_path
):
    metrics = measure(convolutional, swapped(convolutional.data, tmp_path)).metrics
    assert metrics["representations/expert/r1"] > 1.1
    assert metrics["representations/expert/r2"] < 0.9


def test_shards_and_batches_do_not_change_ratios(convolutional, tmp_path):
    outcomes = [
        measure(convolutional, swapped(convolutional.data, tmp_path / str(size), size=size))
        for size in (24, 10, 3)
    ]
    for other in outcomes[1:]:
        assert other.metrics == pytest.approx(outcomes[0].metrics, rel=1e-5)


def test_evaluation_networks_can_be_selected(convolutional, tmp_path):
    adversarial = swapped(convolutional.data, tmp_path)
    evaluation_network = convolutional.trained_network(convolutional.fine_tuned[0])
    subject = replace(convolutional, evaluation_networks={"other": [evaluation_network]})
    metrics = measure(subject, adversarial, networks=["other", "expert"]).metrics
    alone = replace(convolutional, fine_tuned=convolutional.fine_tuned[:1])
    expected = measure(alone, adversarial).metrics
    for name in ("r1", "r2"):
        assert metrics[f"representations/other/{name}"] == pytest.approx(
            expected[f"representations/fine-tuned/{name}"]
        )
    assert {name.split("/")[1] for name in metrics} == {"other", "expert"}


def test_the_histogram_counts_every_image(convolutional, tmp_path):
    outcome = measure(convolutional, swapped(convolutional.data, tmp_path))
    rows = outcome.tables["representations_histogram"]
    for kind in ("expert", "fine-tuned"):
        for name in ("r1", "r2"):
            own = [row for row in rows if (row["network"], row["ratio"]) == (kind, name)]
            assert sum(row["fraction"] for row in own) == pytest.approx(1)
            middle = sum(row["fraction"] * (row["from"] + row["to"]) / 2 for row in own)
            width = own[0]["to"] - own[0]["from"]
            number = outcome.metrics[f"representations/{kind}/{name}"]
            assert middle == pytest.approx(number, abs=width)


class Few(Blobs):
    """A single test image of the last class."""

    def load(self):
        whole = super().load()
        test = whole.test
        kept = torch.arange(len(test)) < 17
        return Splits(whole.train, ImageSet(test.images[kept], test.labels[kept]), whole.classes)


def test_images_of_classes_with_one_image_are_left_out_and_counted(convolutional, tmp_path, caplog):
    data = image_data(Few())
    # Of 17, the targets of the second 8 are the last class, and the last image is of it.
    adversarial = adversarial_set(
        data,
        tmp_path,
        torch.arange(17),
        (data.splits.test.labels + 1) % 3,
        data.splits.test.images,
    )
    with caplog.at_level(logging.WARNING):
        metrics = measure(replace(convolutional, data=data), adversarial).metrics
    assert metrics["representations/expert/left_out"] == 9
    assert metrics["representations/expert/r1"] == pytest.approx(1, rel=1e-5)
    assert "9 of 17 adversarial images are left out of representations" in caplog.text


def test_without_valid_images_ratios_are_nan(convolutional, tmp_path):
    data = image_data(Few())
    test = data.splits.test
    adversarial = adversarial_set(
        data, tmp_path, torch.tensor([16]), torch.tensor([0]), test.images[16:]
    )
    outcome = measure(replace(convolutional, data=data), adversarial)
    assert math.isnan(outcome.metrics["representations/expert/r1"])
    assert outcome.metrics["representations/expert/left_out"] == 1
    assert "representations_histogram" not in outcome.tables


def test_real_images_are_of_the_labels_and_targets_only(convolutional, tmp_path):
    data = convolutional.data
    adversarial = adversarial_set(
        data, tmp_path, torch.tensor([3, 9]), torch.tensor([1, 0]), data.splits.test.images[:2]
    )
    real = RealImages.of(data.splits.test.labels, adversarial, 4)
    assert {c: p.tolist() for c, p in real.by_class.items()} == {
        0: [0, 2, 4, 6],
        1: [8, 10, 12, 14],
    }
    # Neither original is among those four.
    assert real.original_ranks.tolist() == [-1, -1]
    assert RealImages.of(data.splits.test.labels, adversarial, None).original_ranks.tolist() == [
        3,
        1,
    ]


def plan(data, factory=small_convnet, **changes):
    return Plan(
        data=data,
        methods=[],
        held_out=0,
        networks={"network": factory},
        kinds=["expert", "fine-tuned"],
        **changes,
    )


def test_bad_settings_and_studies_are_refused(data, convolutional, tmp_path):
    def check(plan, **settings):
        Representations(**{**PLAIN, **settings}).check(plan)

    check(plan(data))
    check(plan(data), networks=["fine-tuned"], layer="features.0")
    for settings, its_plan, message in (
        ({}, plan(data, adversarial=False), "evaluation.representations needs adversarial images"),
        ({"layer": "feature"}, plan(data), "representations.layer is 'feature', .*one such as"),
        (
            {"networks": ["x"]},
            plan(data),
            "networks has 'x', .* give some of expert, fine-tuned, or",
        ),
        (
            {"networks": []},
            plan(data),
            "networks is empty: give some of expert, fine-tuned, or null",
        ),
        (
            {},
            plan(data, small_mlp),
            "no layer of MLP .* evaluation.representations needs: choose",
        ),
        ({"pooling": huge}, plan(data), "would hold .* features of each of 24 real images, 18 GiB"),
    ):
        with pytest.raises(ValueError, match=message):
            check(its_plan, **settings)
    with pytest.raises(ValueError, match="per_class is 1, .* give 2 or more, or null for all"):
        Representations(**{**PLAIN, "per_class": 1})
    with pytest.raises(ValueError, match="networks has 'clean', and this study has no such"):
        measure(convolutional, untouched(data, tmp_path), networks=["clean"])


def huge(maps):
    """As many features as take 18 GiB for 24 images, in no memory."""
    return maps.new_zeros(1, 1).expand(1, STATISTICS_BYTES * 9 // 8 // 4 // 24 + 1)
