"""What a study writes, and in which order its stages run."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file
from support.attacked import swapped
from support.builders import experts, small_convnet
from support.studies import (
    CONFIGURATION,
    CONTRIBUTIONS,
    NOISE,
    RATIOS,
    TRACES,
    SubjectRecorder,
    ensemble,
    make_study,
    run_to_subject,
    subject_of,
    trainable_study,
)

from cwx.data.corruption import NoCorruption
from cwx.data.splits import ImageSet
from cwx.evaluations.adversarial.adversarial_detection import AdversarialDetection
from cwx.functional.class_gaussians import LedoitWolf
from cwx.functional.representation_distance import flat
from cwx.study.results import Results
from cwx.study.steps.dataset_construction import ConstructedDataset


def test_a_failed_study_writes_its_page_with_the_error(subject, tmp_path):
    subject_of(make_study(tmp_path / "store", subject.trajectories[0].path), tmp_path)
    page = (tmp_path / "run" / "report.html").read_text()
    assert ">Failed</h2>" in page
    assert "SubjectReached" in page


def test_training_images_are_corrupted_before_training(subject, tmp_path, caplog):
    study = make_study(tmp_path / "store", subject.trajectories[0].path, corruption=NOISE)
    with caplog.at_level(logging.INFO, "cwx"):
        data = subject_of(study, tmp_path).data
    expected = NOISE(subject.data.splits.train, subject.data.classes)
    assert torch.equal(data.splits.train.labels, expected.images.labels)
    assert torch.equal(data.clean.labels, subject.data.splits.train.labels)
    saved = load_file(tmp_path / "run" / "corrupted.safetensors")
    assert torch.equal(saved["is_corrupted"], expected.is_corrupted)
    count = int(expected.is_corrupted.sum())
    lines = [message for message in caplog.messages if "corrupted" in message]
    assert lines == [
        f"corruption: {count} of 60 training images are corrupted, a fraction of {count / 60:.4g}; "
        f"{count} have another label"
    ]


@pytest.mark.parametrize("corruption", [NoCorruption(), NOISE], ids=["none", "noise"])
def test_the_table_of_classes_is_written_before_training(subject, tmp_path, corruption):
    data = subject.data
    study = make_study(tmp_path / "store", subject.trajectories[0].path, corruption=corruption)
    subject_of(study, tmp_path)
    train = corruption(data.splits.train, data.classes).images.labels.bincount().tolist()
    assert (tmp_path / "run" / "tables" / "classes.csv").read_text().splitlines() == [
        "index,class,synset,train,test",
        *(f"{i},{name},,{train[i]},8" for i, name in enumerate(data.classes)),
    ]


@pytest.mark.parametrize("corruption", [NoCorruption(), NOISE], ids=["none", "noise"])
def test_the_effective_rate_is_a_metric(subject, tmp_path, corruption):
    study = make_study(tmp_path / "store", subject.trajectories[0].path, corruption=corruption)
    study.method = {}
    study.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    is_corrupted = corruption(subject.data.splits.train, subject.data.classes).is_corrupted
    rate = is_corrupted.double().mean().item()
    changes = {"corruption/changed_pixels": 0, "corruption/changed_labels": rate} if rate else {}
    assert metrics == {"corruption/effective_rate": rate} | changes
    assert (tmp_path / "run" / "corrupted.safetensors").exists() == bool(is_corrupted.any())


def test_the_metrics_of_the_paper_are_in_a_table(subject, tmp_path):
    paper = {"corruption/effective_rate": 0.05, "other": 1}
    study = make_study(tmp_path / "store", subject.trajectories[0].path, paper=paper)
    study.method = {}
    study.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    table = (tmp_path / "run" / "tables" / "paper.csv").read_text().splitlines()
    assert table == ["name,measured,paper", "corruption/effective_rate,0.0,0.05", "other,,1"]


class RealImages:
    """A method with nothing to fit."""

    def __init__(self, *, subject, seed, stage):
        self.subject = subject

    def explanations(self):
        return self.subject.real_images(1)


def test_a_method_without_training_is_not_fitted(subject, tmp_path):
    study = make_study(tmp_path / "store", subject.trajectories[0].path)
    study.method, results = {"real": RealImages}, Results(tmp_path / "run")
    study.run(results, CONFIGURATION, experiment="x", resumed=False)
    explanations = results.explanations()["real"]
    assert torch.equal(explanations.images, subject.real_images(1).images)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_adversarial_images_are_evaluated_before_and_after_fine_tuning(tmp_path):
    """From experts to pages, with stubs for the adversary and the fine-tuning."""
    study = trainable_study(tmp_path / "store")
    study.network, study.method = small_convnet, {}
    study.recipe = lambda *, data, seeds, **_: experts(data, seeds, epochs=2, network=small_convnet)
    study.adversary = lambda subject, _: swapped(subject.data, tmp_path / "adversarial")
    study.fine_tuning = lambda subject, _: subject.trajectories
    settings = {"networks": None, "layer": None, "before_nonlinearity": False}
    study.evaluation = {
        "representations": RATIOS(networks=None),
        "adversarial_detection": AdversarialDetection(
            **settings, pooling=flat, covariance=LedoitWolf()
        ),
        "contributions": CONTRIBUTIONS(images=3),
        "traces": TRACES(images=1, fraction=0.1),
    }
    study.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for name in (
        "representations/{}/r1",
        "adversarial_detection/{}/auc",
        "contributions/{}/auc/contradiction",
        "traces/{}/adversarial/consistent",
    ):
        assert metrics[name.format("expert")] == metrics[name.format("fine-tuned")]
    page = (tmp_path / "run" / "report.html").read_text()
    assert '<a href="./traces.html">' in page
    for title in (
        "Representation distances r₁ and r₂ of adversarial images",
        "Adversarial detection: ROC curves",
    ):
        assert f"<h3>{title}</h3>" in page
    traces_page = (tmp_path / "run" / "traces.html").read_text()
    # A test image and what was study of it, each before and after.
    assert traces_page.count("data:image/png") == 4


def test_an_adversary_may_attack_the_fine_tuned_networks(tmp_path):
    study = trainable_study(tmp_path / "store", held_out=[1])
    study.fine_tuning = lambda subject, _: subject.held_out
    study.adversary = ensemble("fine-tuned")
    study.method, study.evaluation = {}, {"recorder": (recorder := SubjectRecorder())}
    configuration = CONFIGURATION | {"precision": {"experts": {}, "methods": {}}}
    study.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)
    subject = recorder.subject
    assert list(subject.adversarial.members) == ["fine-tuned"]
    folder = subject.adversarial.shards.folder
    identity = json.loads((folder / "identity.json").read_text())
    assert [m["trained"] for m in identity["members"]] == [subject.fine_tuned[0].identity]


def test_networks_are_trained_on_the_constructed_images(tmp_path):
    study = trainable_study(tmp_path / "store", held_out=[1])
    study.corruption = NOISE

    def construction(data, training):
        train = data.splits.train
        assert torch.equal(train.labels, data.corrupted.images.labels)
        return ConstructedDataset(
            ImageSet(255 - train.images, train.labels), {"dataset_construction/a": 0.5}
        )

    study.dataset_construction = construction
    subject = run_to_subject(study, tmp_path / "run")
    train, clean = subject.data.splits.train, subject.data.clean
    assert torch.equal(train.images, 255 - clean.images)
    identities = [t.identity for t in (*subject.trajectories, *subject.held_out)]
    assert {i["data"] for i in identities} == {subject.data.fingerprint()}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["dataset_construction/a"] == 0.5
    # The same images give the same experts, whatever their source.
    again = trainable_study(tmp_path / "store", held_out=[1])
    again.data = subject.data
    again.corruption, again.dataset_construction = (lambda *_: subject.data.corrupted), construction
    paths = [t.path for t in run_to_subject(again, tmp_path / "again").trajectories]
    assert paths == [t.path for t in subject.trajectories]
