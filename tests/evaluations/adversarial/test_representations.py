import logging
import math
from dataclasses import replace

import pytest
import torch
from support import references
from support.attacked import adversarial_set, swapped, untouched
from support.builders import Blobs, image_data, small_convnet, small_mlp

from cwx.data.splits import ImageSet, Splits
from cwx.evaluations.adversarial.representations import MOST_BYTES, Asked, Representations
from cwx.functional.representation_distance import flat, mean_over_places
from cwx.training.plan import Plan

PLAIN = {"networks": None, "layer": None, "pooling": flat, "per_class": None}


def measured(subject, adversarial, **settings):
    made = Representations(**{**PLAIN, **settings})
    return made(replace(subject, adversarial=adversarial), {})


def representations(subject, network, images, pooling):
    """φ, without what the evaluation is made of."""
    normalized = subject.data.normalization.from_bytes(images)
    return pooling(network.features(normalized)).detach()


def literal(subject, network, adversarial, pooling, places):
    """r1 and r2 of every adversarial image; `places` are the real images of a class."""
    test = subject.data.splits.test
    own = {c: representations(subject, network, test.images[p], pooling) for c, p in places.items()}
    images = adversarial.at(torch.arange(len(adversarial)))
    found = representations(subject, network, images, pooling)
    return [
        references.distance_ratios(
            found[i].tolist(),
            next((k for k, p in enumerate(places[label]) if p == original), -1),
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


@pytest.mark.parametrize("pooling", [flat, mean_over_places])
@pytest.mark.parametrize("per_class", [None, 3])
def test_ratios_are_those_of_the_formulas(convolutional, tmp_path, pooling, per_class):
    adversarial = swapped(convolutional.data, tmp_path)
    found = measured(convolutional, adversarial, pooling=pooling, per_class=per_class)
    count = per_class or 8
    places = {c: [8 * c + i * 8 // count for i in range(count)] for c in range(3)}
    networks = {
        "expert": convolutional.trajectories,
        "fine-tuned": convolutional.fine_tuned,
    }
    for kind, trajectories in networks.items():
        ratios = [
            literal(convolutional, convolutional.trained(t), adversarial, pooling, places)
            for t in trajectories
        ]
        for place, name in enumerate(("r1", "r2")):
            each = [[pair[place] for pair in pairs] for pairs in ratios]
            expected = sum(sum(own) / len(own) for own in each) / 2
            assert found.metrics[f"representations/{kind}/{name}"] == pytest.approx(
                expected, rel=1e-4
            )
        assert found.metrics[f"representations/{kind}/left_out"] == 0
    assert len(found.tables["representations_networks"]) == 4
    assert set(found.figures) == {"representations"}


def test_what_an_attack_leaves_alone_has_ratios_of_one(convolutional, tmp_path):
    metrics = measured(convolutional, untouched(convolutional.data, tmp_path)).metrics
    assert metrics == {
        f"representations/{kind}/{name}": value
        for kind in ("expert", "fine-tuned")
        for name, value in (
            ("r1", pytest.approx(1, rel=1e-5)),
            ("r2", pytest.approx(1, rel=1e-5)),
            ("left_out", 0),
        )
    }


def test_images_of_another_class_are_far_from_their_own_and_near_to_it(convolutional, tmp_path):
    metrics = measured(convolutional, swapped(convolutional.data, tmp_path)).metrics
    assert metrics["representations/expert/r1"] > 1.1
    assert metrics["representations/expert/r2"] < 0.9


def test_shards_and_batches_do_not_change_ratios(convolutional, tmp_path):
    found = [
        measured(convolutional, swapped(convolutional.data, tmp_path / str(size), size=size))
        for size in (24, 10, 3)
    ]
    for other in found[1:]:
        assert other.metrics == pytest.approx(found[0].metrics, rel=1e-5)


def test_judges_are_compared_if_they_are_named(convolutional, tmp_path):
    adversarial = swapped(convolutional.data, tmp_path)
    evaluation_network = convolutional.trained(convolutional.fine_tuned[0])
    subject = replace(convolutional, evaluation_networks={"other": [evaluation_network]})
    metrics = measured(subject, adversarial, networks=["other", "expert"]).metrics
    alone = replace(convolutional, fine_tuned=convolutional.fine_tuned[:1])
    expected = measured(alone, adversarial).metrics
    for name in ("r1", "r2"):
        assert metrics[f"representations/other/{name}"] == pytest.approx(
            expected[f"representations/fine_tuned/{name}"]
        )
    assert {name.split("/")[1] for name in metrics} == {"other", "expert"}


def test_the_histogram_counts_every_image(convolutional, tmp_path):
    outcome = measured(convolutional, swapped(convolutional.data, tmp_path))
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


def test_classes_of_one_image_are_left_out_and_counted(convolutional, tmp_path, caplog):
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
        metrics = measured(replace(convolutional, data=data), adversarial).metrics
    assert metrics["representations/expert/left_out"] == 9
    assert metrics["representations/expert/r1"] == pytest.approx(1, rel=1e-5)
    assert "9 of 17 adversarial images are left out of representations" in caplog.text


def test_where_nothing_is_left_there_is_no_ratio(convolutional, tmp_path):
    data = image_data(Few())
    test = data.splits.test
    adversarial = adversarial_set(
        data, tmp_path, torch.tensor([16]), torch.tensor([0]), test.images[16:]
    )
    outcome = measured(replace(convolutional, data=data), adversarial)
    assert math.isnan(outcome.metrics["representations/expert/r1"])
    assert outcome.metrics["representations/expert/left_out"] == 1
    assert "representations_histogram" not in outcome.tables


def test_only_the_classes_that_are_asked_for_are_held(convolutional, tmp_path):
    data = convolutional.data
    adversarial = adversarial_set(
        data, tmp_path, torch.tensor([3, 9]), torch.tensor([1, 0]), data.splits.test.images[:2]
    )
    ask = Asked.of(data.splits.test.labels, adversarial, 4)
    assert {c: p.tolist() for c, p in ask.real.items()} == {0: [0, 2, 4, 6], 1: [8, 10, 12, 14]}
    # Neither original is among those four.
    assert ask.originals.tolist() == [-1, -1]
    assert Asked.of(data.splits.test.labels, adversarial, None).originals.tolist() == [3, 1]


def plan(data, factory=small_convnet, **changes):
    return Plan(
        data=data,
        methods=[],
        held_out=0,
        networks={"network": factory},
        kinds=["expert", "fine-tuned"],
        **changes,
    )


def test_what_cannot_be_measured_is_refused(data, convolutional, tmp_path):
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
            "no layer of MLP .* evaluation.representations looks at",
        ),
        ({"pooling": huge}, plan(data), "would hold .* features of each of 24 real images, 18 GiB"),
    ):
        with pytest.raises(ValueError, match=message):
            check(its_plan, **settings)
    with pytest.raises(ValueError, match="per_class is 1, .* give 2 or more, or null for all"):
        Representations(**{**PLAIN, "per_class": 1})
    with pytest.raises(ValueError, match="networks has 'clean', and this study has no such"):
        measured(convolutional, untouched(data, tmp_path), networks=["clean"])


def huge(maps):
    """As many features as take 18 GiB for 24 images, in no memory."""
    return maps.new_zeros(1, 1).expand(1, MOST_BYTES * 9 // 8 // 4 // 24 + 1)
