from dataclasses import replace

import pytest
import torch
from support import references
from support.attacked import adversarial_set, swapped
from support.builders import Blobs, ColumnClassifier, image_data, small_convnet, small_mlp
from support.pictures import write_image
from support.studies import TRACES

from cwx.data.splits import ImageSet
from cwx.evaluations.traces.evaluation import Traces
from cwx.evaluations.traces.trace import class_evidence
from cwx.functional.class_similarity import correlation
from cwx.training.plan import Plan

PLAIN = {**TRACES.keywords, "images": 3, "fraction": 0.25}
NUMBERS = ("difference", "without_probability", "lc", "probability")
CORRELATION = correlation(2 * (1 - torch.eye(3)).double(), 1.0)


def trace(subject, **settings):
    return Traces(**{**PLAIN, **settings})(subject, {})


def head(network, maps):
    """Logits from the maps of one image after the ReLU."""
    return network.classifier(network.features[2](maps).flatten())


def test_rows_equal_the_formulas(convolutional):
    outcome = trace(convolutional, images=[0, 13], neurons=5)
    rows, test = outcome.tables["traces"], convolutional.data.splits.test
    normalized = convolutional.data.normalization.from_bytes(test.images)
    by_trace = {}
    for row in rows:
        by_trace.setdefault(row["trace"], []).append(row)
    assert [own[0]["image"] for own in by_trace.values()] == ["Test image 0"] * 2 + [
        "Test image 13"
    ] * 2
    assert [own[0]["network"] for own in by_trace.values()] == ["expert", "fine-tuned"] * 2
    networks = [
        convolutional.trained_network(t[0])
        for t in (convolutional.trajectories, convolutional.fine_tuned)
    ]
    for own, network, index in zip(by_trace.values(), 2 * networks, (0, 0, 13, 13), strict=True):
        # Before the pooling.
        maps = network.features[:2](normalized).detach()
        whole = network(normalized[index : index + 1]).softmax(1)[0]
        predicted = int(whole.argmax())
        differences = [
            references.prediction_difference(
                lambda m, network=network: head(network, m),
                maps[index],
                channel,
                CORRELATION.tolist(),
            )
            for channel in range(5)
        ]
        # Channels without influence are left out.
        order = [c for c in sorted(range(5), key=lambda c: -differences[c]) if differences[c]]
        assert [row["channel"] for row in own] == order
        for row in own:
            channel = row["channel"]
            assert row["difference"] == pytest.approx(differences[channel], rel=1e-3)
            assert row["predicted_class"] == convolutional.data.classes[predicted]
            assert row["probability"] == pytest.approx(whole[predicted].item(), rel=1e-5)
            assert row["layer"] == "features.0"
            without = maps[index].clone()
            without[channel] = 0
            probabilities = head(network, without).softmax(0)
            assert row["without_probability"] == pytest.approx(
                probabilities[predicted].item(), rel=1e-4
            )
            assert row["without_class"] == convolutional.data.classes[int(probabilities.argmax())]
            logits = head(network, maps[index]) - head(network, without)
            label = int(test.labels[index])
            contributions = [logits[predicted].item(), logits[label].item()]
            assert [row["predicted_logit"], row["true_logit"]] == pytest.approx(
                contributions, rel=1e-3, abs=1e-6
            )
            assert row["target_logit"] == ""
            activations = maps[:, channel].flatten(1).amax(1)
            order = activations.argsort(descending=True, stable=True)
            strongest = order[:6][activations[order[:6]] > activations[order[6]]]
            counts = torch.bincount(test.labels[strongest], minlength=3)
            assert row["strongest"] == len(strongest) > 0
            class_counts = [
                (row[f"{rank}_class"], row[f"{rank}_images"])
                for rank in ("first", "second", "third")
            ]
            assert dict(pair for pair in class_counts if pair[1]) == {
                convolutional.data.classes[c]: n for c, n in enumerate(counts.tolist()) if n
            }
            fractions = (counts / len(strongest)).double()
            assert row["lc"] == pytest.approx((fractions @ CORRELATION @ fractions).item())


def test_neurons_of_the_predicted_class_are_evidence_for_it(looking):
    """A channel is the brightness of its class's column, and its mean the logit of the class."""
    outcome = trace(looking, images=[2, 9, 20], neurons=1)
    rows = outcome.tables["traces"]
    classes = looking.data.classes
    assert [row["channel"] for row in rows] == [0, 1, 2]
    assert [row["predicted_class"] for row in rows] == list(classes)
    assert [row["label_class"] for row in rows] == list(classes)
    assert [row["first_class"] for row in rows] == list(classes)
    assert {row["first_images"] for row in rows} == {6}
    assert {row["speaks"] for row in rows} == {"for"}
    assert {row["evidence"] for row in rows} == {"consistent"}
    assert {row["layer"] for row in rows} == {"features"}
    assert all(row["without_probability"] < row["probability"] for row in rows)
    assert all(row["lc"] == pytest.approx(1) for row in rows)
    assert outcome.metrics == {
        "traces/expert/test/consistent": 1.0,
        "traces/expert/test/contradictory": 0.0,
    }
    assert list(outcome.figures) == ["trace_1", "trace_2", "trace_3"]


class Backwards(ColumnClassifier):
    """The logit of each class is the brightness of the next one's column."""

    def forward(self, images):
        return super().forward(images).roll(-1, 1)


def test_neurons_of_other_classes_are_evidence_against_it(looking):
    backwards = replace(looking, factory=Backwards)
    outcome = trace(backwards, images=[2, 9, 20], neurons=1)
    rows = outcome.tables["traces"]
    assert [row["predicted_class"] for row in rows] == ["right", "left", "middle"]
    assert {row["speaks"] for row in rows} == {"against"}
    assert outcome.metrics["traces/expert/test/contradictory"] == 1
    assert outcome.metrics["traces/expert/test/consistent"] == 0


@pytest.mark.parametrize(
    ("fractions", "evidence"),
    [
        # C is 1 on the diagonal and 0.135 elsewhere: the average class is at 0.42.
        ([1.0, 0, 0], ["for", "against", "against"]),
        ([0.6, 0.4, 0], ["for", "for", "against"]),
        ([0.65, 0.35, 0], ["for", "for", "against"]),
        ([0.67, 0.33, 0], ["for", "against", "against"]),
        ([1 / 3, 1 / 3, 1 / 3], ["nothing"] * 3),
        ([0.5, 0.3, 0.2], ["nothing"] * 3),
    ],
)
def test_evidence_of_a_neuron_for_each_class(fractions, evidence):
    fractions = torch.tensor(fractions).double()
    assert [class_evidence(label, fractions, CORRELATION) for label in range(3)] == evidence


def test_evidence_is_for_classes_close_to_the_top_images():
    """Two pairs of close classes, far from each other."""
    distances = torch.tensor([[0, 1, 6, 6], [1, 0, 6, 6], [6, 6, 0, 1], [6, 6, 1, 0]]).double()
    close = correlation(distances, 1.0)
    evidence = [class_evidence(label, torch.tensor([1.0, 0, 0, 0]), close) for label in range(4)]
    assert evidence == ["for", "for", "against", "against"]
    # A class of few top images, among many classes.
    many = correlation(2 * (1 - torch.eye(20)).double(), 1.0)
    fractions = torch.zeros(20)
    fractions[0], fractions[1] = 0.8, 0.2
    assert [class_evidence(label, fractions, many) for label in range(3)] == [
        "for",
        "weak",
        "against",
    ]


def test_adversarial_images_follow_their_originals(convolutional, tmp_path):
    data = convolutional.data
    originals = torch.tensor([21, 4, 21, 10])
    adversarial = adversarial_set(
        data, tmp_path, originals, torch.tensor([0, 1, 1, 2]), data.splits.test.images[:4]
    )
    subject = replace(convolutional, adversarial=adversarial, fine_tuned=[])
    rows = trace(subject, images=[4, 5, 21], neurons=1).tables["traces"]
    assert [row["image"] for row in rows] == [
        "Test image 4",
        "Adversarial image 1, made from test image 4",
        "Test image 5",
        "Test image 21",
        "Adversarial image 0, made from test image 21",
    ]
    assert [row["kind"] for row in rows] == ["test", "adversarial", "test", "test", "adversarial"]
    assert [row["target_class"] for row in rows] == ["", "middle", "", "", "left"]
    assert [row["label_class"] for row in rows] == ["left", "left", "left", "right", "right"]
    # The prediction is that of the adversarial image.
    network = subject.trained_network(subject.trajectories[0])
    logits = network(data.normalization.from_bytes(adversarial.at(torch.tensor([1, 0]))))
    assert [rows[i]["probability"] for i in (1, 4)] == pytest.approx(
        logits.softmax(1).amax(1).tolist(), rel=1e-5
    )
    # A number of images is selected among the originals.
    outcome = trace(subject, images=2, neurons=1)
    assert {row["image"] for row in outcome.tables["traces"]} >= {"Test image 4", "Test image 10"}
    assert set(outcome.metrics) == {
        f"traces/expert/{kind}/{name}"
        for kind in ("test", "adversarial")
        for name in ("consistent", "contradictory")
    }


def test_a_trace_counts_the_channels_until_the_prediction_flips(looking):
    """Each class has one channel, without which its logit is 0."""
    rows = trace(looking, images=[2, 9, 20], neurons=1).tables["traces"]
    assert {(row["ablation"], row["flip"], row["removed"]) for row in rows} == {("zero", 1, 3)}
    rows = trace(replace(looking, factory=Constant), images=[2]).tables["traces"]
    # All channels, as nothing depends on them.
    assert {(row["flip"], row["removed"]) for row in rows} == {("", 3)}


@pytest.mark.parametrize("ablation", ["mean", "resample"])
def test_channels_are_replaced_by_those_of_images_that_are_not_traced(convolutional, ablation):
    subject = replace(convolutional, fine_tuned=[])
    data, network = subject.data, subject.first_network("expert")
    traced = [i for i in range(24) if i != 7]
    rows = trace(subject, images=traced, neurons=None, ablation=ablation).tables["traces"]
    maps = network.features[:2](data.normalization.from_bytes(data.splits.test.images)).detach()
    assert len(rows) > 24
    for row in rows:
        index, channel = int(row["image"].split()[-1]), row["channel"]
        without = maps[index].clone()
        # The only image left is the mean and the sample.
        without[channel] = maps[7, channel]
        difference = head(network, maps[index]) - head(network, without)
        predicted = int(head(network, maps[index]).argmax())
        assert row["predicted_logit"] == pytest.approx(
            difference[predicted].item(), rel=1e-3, abs=1e-5
        )
        assert row["ablation"] == ablation


def test_a_number_of_images_is_evenly_spaced(convolutional):
    rows = trace(convolutional, images=4, neurons=1).tables["traces"]
    names = [f"Test image {i}" for i in (0, 6, 12, 18)]
    assert list(dict.fromkeys(row["image"] for row in rows)) == names


def test_a_threshold_selects_all_neurons_above_it(convolutional):
    subject = replace(convolutional, fine_tuned=[])
    rows = trace(subject, images=[0], neurons=None).tables["traces"]
    differences = [row["difference"] for row in rows]
    assert len(rows) > 2
    threshold = (differences[1] + differences[2]) / 2
    above = trace(subject, images=[0], neurons=None, threshold=threshold).tables["traces"]
    assert [row["channel"] for row in above] == [row["channel"] for row in rows[:2]]
    (first,) = trace(subject, images=[0], neurons=1, threshold=threshold).tables["traces"]
    assert first["channel"] == rows[0]["channel"]


class Constant(ColumnClassifier):
    """Its prediction does not depend on its maps."""

    def forward(self, images):
        return 0 * super().forward(images) + torch.tensor([0.0, 1, 0])


def test_without_influential_channels_there_is_no_neuron(looking):
    outcome = trace(replace(looking, factory=Constant), images=[2])
    (row,) = outcome.tables["traces"]
    assert row["predicted_class"] == "middle"
    assert row["channel"] == row["first_class"] == ""
    assert row["evidence"] == "inconclusive"
    assert outcome.metrics["traces/expert/test/contradictory"] == 0
    assert list(outcome.figures) == ["trace_1"]


class Colour(Blobs):
    """With a third channel, as pictures have."""

    def _set(self, per_class, seed):
        blobs = super()._set(per_class, seed)
        return ImageSet(torch.cat([blobs.images, blobs.images[:, :1]], 1), blobs.labels)


def test_picture_files_are_traced(tmp_path, looking):
    write_image(tmp_path / "mine.png", size=(9, 7))
    data = image_data(Colour(), mean=[0.5] * 3, std=[0.5] * 3)
    subject = replace(looking, data=data)
    rows = trace(subject, images=[], files=[str(tmp_path / "mine.png")]).tables["traces"]
    assert {row["image"] for row in rows} == {str(tmp_path / "mine.png")}
    assert {row["kind"] for row in rows} == {"file"}
    assert {row["label_class"] for row in rows} == {""}


def plan(data, factory=small_convnet):
    return Plan(
        data=data,
        methods=[],
        held_out=0,
        networks={"network": factory},
        kinds=["expert", "fine-tuned"],
        adversarial=False,
    )


def test_bad_settings_are_refused(data, tmp_path):
    def check(its_data=data, factory=small_convnet, **settings):
        Traces(**{**PLAIN, **settings}).check(plan(its_data, factory))

    check()
    check(images=[0, 23])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    write_image(tmp_path / "whole.png")
    colour = image_data(Colour(), mean=0.5, std=0.5)
    check(colour, images=[], files=[str(tmp_path / "whole.png")])
    broken, whole = ([str(tmp_path / f"{name}.png")] for name in ("broken", "whole"))
    for settings, message in (
        ({"images": [3, 24]}, "traces.images has 24, and there are 24 test images: .* in 0-23"),
        ({"images": [-1]}, "traces.images has -1"),
        ({"images": -1}, "traces.images is -1: give 0 or more, or a list of indices"),
        ({"images": 0}, "name no image to trace: give one of them, or leave traces out"),
        ({"images": []}, "name no image to trace"),
        ({"neurons": 0}, "traces.neurons is 0: give 1 or more, or null for all"),
        ({"ablation": "mean", "images": 24}, "traces.images takes all 24 test images"),
        ({"ablation": "resample", "images": [*range(24)]}, "traces.images takes all 24 test"),
        ({"threshold": -1.0}, "traces.threshold is -1.0: give 0 or more"),
        ({"threshold": float("nan")}, "traces.threshold is nan"),
        ({"fraction": 0}, "traces.fraction is 0: give a fraction above 0, up to 1"),
        ({"fraction": 1.5}, "traces.fraction is 1.5"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"layer": "feature"}, "traces.layer is 'feature', .*one such as features"),
        (
            {"networks": ["refind"]},
            "traces.networks has 'refind', .* some of expert, fine-tuned, or",
        ),
        ({"factory": small_mlp}, "no layer of MLP .* or leave evaluation.traces out"),
        ({"files": whole}, "have 2 channels: set it to"),
        ({"its_data": colour, "files": broken}, "traces.files: .*broken.png cannot be read as an"),
        ({"its_data": colour, "files": ["none.png"]}, "traces.files: none.png cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            check(**settings)


def test_traces_need_no_fine_tuned_networks(convolutional, tmp_path):
    subject = replace(
        convolutional, fine_tuned=[], adversarial=swapped(convolutional.data, tmp_path)
    )
    outcome = trace(subject, networks=["expert"])
    assert {row["network"] for row in outcome.tables["traces"]} == {"expert"}
    with pytest.raises(ValueError, match="traces.networks has 'fine-tuned', and this study has no"):
        trace(subject, networks=["fine-tuned"])
