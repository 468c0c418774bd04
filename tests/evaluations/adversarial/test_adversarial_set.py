"""Accuracy on adversarial images of networks with known predictions."""

from dataclasses import replace

import pytest
import torch
from support.builders import Blobs, image_data
from torch import nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet, Splits
from cwx.evaluations.adversarial.adversarial_set import AdversarialSetAccuracy
from cwx.functional.rng import stream
from cwx.storage.shards import Shards
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class Levels(Blobs):
    """Images of 1x2x2; `FirstByte` predicts from the first byte, which is in 0-6."""

    classes = tuple("abcdefg")

    def load(self):
        generator = stream(3)
        images = torch.randint(0, 7, (40, 1, 2, 2), generator=generator).byte()
        labels = torch.randint(0, 7, (40,), generator=generator)
        return Splits(ImageSet(images[:7], labels[:7]), ImageSet(images[7:], labels[7:]), "abcdefg")


class FirstByte(nn.Module):
    """Ranks the classes by (first byte + shift) mod 7, ascending from there."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def ranking(self, byte):
        return [(byte + self.shift + k) % 7 for k in range(7)]

    def forward(self, images):
        first = (images[:, 0, 0, 0] * 255).round().long()
        ranks = [torch.tensor(self.ranking(int(byte))).argsort() for byte in first]
        return -torch.stack(ranks).float()


PANEL = {
    "attacked": [FirstByte(0), FirstByte(2), FirstByte(5)],
    "other": [FirstByte(1), FirstByte(4)],
}


def subject(folder, *, data=None, evaluation_networks=PANEL, count=30, size=8):
    """A study with random adversarial images."""
    if data is None:
        data = ImageData(source=Levels(), mean=0, std=1, batch_size=5, per_class=None, total=None)
        data.setup()
    test, generator = data.splits.test, stream(4)
    originals = torch.randint(len(test), (count,), generator=generator)
    labels, classes = test.labels[originals], len(data.classes)
    shift = torch.randint(1, classes, (count,), generator=generator)
    drawn = {
        "images": torch.randint(0, 7, (count, *data.image_shape), generator=generator).byte(),
        "labels": labels,
        "targets": (labels + shift) % classes,
        "originals": originals,
    }
    shards = Shards(folder, count=count, size=size)
    for number in range(len(shards)):
        shards.write(number, {name: t[shards.rows(number)] for name, t in drawn.items()})
    adversarial = AdversarialSet.from_shards(
        shards, members=["attacked"], attacked=["attacked"], metrics={}
    )
    return Subject(
        data=data,
        factory=None,
        trajectories=[],
        held_out=[],
        evaluation_networks=evaluation_networks,
        adversarial=adversarial,
    )


def literal(study, network):
    """Each fraction, counted image by image."""
    adversarial, test = study.adversarial, study.data.splits.test
    real = [network.ranking(int(image[0, 0, 0])) for image in test.images]
    attacked = [
        network.ranking(int(image[0, 0, 0])) for image in adversarial.shards.tensor("images")
    ]

    def fraction(rankings, labels, depth):
        pairs = list(zip(rankings, labels.tolist(), strict=True))
        return sum(label in ranking[:depth] for ranking, label in pairs) / len(pairs)

    return {
        "clean_top1": fraction(real, test.labels, 1),
        "clean_top5": fraction(real, test.labels, 5),
        "top1": fraction(attacked, adversarial.labels, 1),
        "top5": fraction(attacked, adversarial.labels, 5),
        "success": fraction(attacked, adversarial.targets, 1),
    }


def test_fractions_are_counted_for_each_network(tmp_path):
    study = subject(tmp_path)
    outcome = AdversarialSetAccuracy(shown=3, amplify=5)(study, {})
    rows = outcome.tables["adversarial_set_networks"]
    assert [(row["network"], row["replicate"], row["attacked"]) for row in rows] == [
        ("attacked", 0, "yes"),
        ("attacked", 1, "no"),
        ("attacked", 2, "no"),
        ("other", 0, "no"),
        ("other", 1, "no"),
    ]
    for row in rows:
        expected = literal(study, PANEL[row["network"]][row["replicate"]])
        assert {name: row[name] for name in expected} == pytest.approx(expected)
        assert 0 < row["success"] < 1
    means = outcome.tables["adversarial_set"]
    assert [(row["network"], row["attacked"], row["networks"]) for row in means] == [
        ("attacked", "yes", 1),
        ("attacked", "no", 2),
        ("other", "no", 2),
    ]
    assert means[0]["top1_std"] == ""
    assert means[2]["top1"] == pytest.approx((rows[3]["top1"] + rows[4]["top1"]) / 2)
    for name, row in zip(("attacked", "attacked-unseen", "other"), means, strict=True):
        for value in ("clean_top1", "clean_top5", "top1", "top5", "success"):
            assert outcome.metrics[f"adversarial_set/{name}/{value}"] == row[value]


def test_the_distance_is_on_bytes(tmp_path):
    study = subject(tmp_path)
    adversarial = study.adversarial
    difference = adversarial.shards.tensor("images").double()
    difference -= study.data.splits.test.images[adversarial.originals].double()
    expected = difference.flatten(1).square().sum(1).sqrt().mean().item()
    metrics = AdversarialSetAccuracy(shown=3, amplify=5)(study, {}).metrics
    assert metrics["adversarial_set/distance"] == pytest.approx(expected)
    assert len(metrics) == 1 + 3 * 5


@pytest.mark.parametrize("size", [1, 7, 30])
def test_shard_sizes_do_not_change_metrics(tmp_path, size):
    metrics = [
        AdversarialSetAccuracy(shown=3, amplify=5)(subject(tmp_path / str(s), size=s), {}).metrics
        for s in (8, size)
    ]
    assert metrics[0] == pytest.approx(metrics[1])


class First(nn.Module):
    def forward(self, images):
        return torch.eye(3)[torch.zeros(len(images)).long()]


def test_few_classes_have_no_top_5(tmp_path):
    study = subject(tmp_path, data=image_data(), evaluation_networks={"first": [First()]})
    outcome = AdversarialSetAccuracy(shown=3, amplify=5)(study, {})
    values = ("clean_top1", "top1", "success")
    assert outcome.metrics.keys() == {
        "adversarial_set/distance",
        *(f"adversarial_set/first/{value}" for value in values),
    }
    assert outcome.metrics["adversarial_set/first/clean_top1"] == pytest.approx(1 / 3)


def test_the_figure_shows_amplified_differences(tmp_path):
    study = subject(tmp_path)
    figure = AdversarialSetAccuracy(shown=3, amplify=2.5)(study, {}).figures["adversarial_set"]
    adversarial, classes = study.adversarial, study.data.classes
    texts = [text.get_text() for text in figure.texts]
    assert [text.replace("\n", " ") for text in texts[:3]] == [
        "real",
        "adversarial",
        "difference x2.5",
    ]
    chosen = [0, 10, 20]
    assert texts[3:] == [
        f"{classes[adversarial.labels[i]]} → {classes[adversarial.targets[i]]}" for i in chosen
    ]
    tiles = [axes.images[0].get_array()[..., 0] for axes in figure.axes]
    assert len(tiles) == 9
    attacked = adversarial.shards.tensor("images")
    for row, i in enumerate(chosen):
        real = study.data.splits.test.images[adversarial.originals[i], 0]
        assert torch.equal(torch.tensor(tiles[row]), real)
        assert torch.equal(torch.tensor(tiles[3 + row]), attacked[i, 0])
        change = 127.5 + 2.5 * (attacked[i, 0].double() - real.double())
        assert (torch.tensor(tiles[6 + row]) - change).abs().max() <= 0.51


def test_the_figure_shows_at_most_all_images(tmp_path):
    figure = AdversarialSetAccuracy(shown=99, amplify=1)(subject(tmp_path, count=4), {}).figures[
        "adversarial_set"
    ]
    assert len(figure.axes) == 12


def test_a_study_without_adversarial_images_is_refused(data):
    plan = Plan(data=data, methods=[], held_out=0, adversarial=False)
    message = (
        "evaluation.adversarial_set needs adversarial images, but this study makes none: choose "
        "adversary=ensemble"
    )
    with pytest.raises(ValueError, match=message):
        AdversarialSetAccuracy(shown=1, amplify=1).check(plan)
    AdversarialSetAccuracy(shown=1, amplify=1).check(replace(plan, adversarial=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shown": 0}, "evaluation.adversarial_set.shown is 0: give 1 or more"),
        ({"amplify": 0}, "evaluation.adversarial_set.amplify is 0: give a number above 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AdversarialSetAccuracy(**{"shown": 1, "amplify": 1, **settings})
