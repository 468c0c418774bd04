"""Impossible studies are refused before any training."""

from functools import partial

import pytest
import torch
from support.builders import BlobsWithoutTraining, image_data, small_mlp
from support.studies import (
    CONFIGURATION,
    NOISE,
    RATIOS,
    chosen_experts,
    ensemble,
    make_study,
    raise_subject,
    refuse_to_train,
    run_to_subject,
    study_at_epoch,
    trainable_study,
)

from cwx.evaluations.adversarial.adversarial_set import AdversarialSetAccuracy
from cwx.methods.distill import Distill
from cwx.methods.gradcam import GradCamRegions
from cwx.study.results import Results
from cwx.training.experts import EarlyExperts


class TooFewLogits(torch.nn.Module):
    """Returns one logit less than the number of classes."""

    def __init__(self, *, num_classes, **shape):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, images):
        return torch.zeros(len(images), self.num_classes - 1)


class RefusingEvaluation:
    """An evaluation whose check always fails."""

    def check(self, plan):
        raise ValueError(f"refused: {plan.methods}, {plan.held_out}, {len(plan.data.classes)}")

    def __call__(self, subject, sources):
        raise AssertionError("the check has failed before")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluation_networks": {"expert": small_mlp}},
            "an evaluation network is called 'expert'.*another name",
        ),
        (
            {
                "method": {
                    "probe": partial(Distill, span=2, start_min=0, start_max=9, images_per_class=1)
                }
            },
            r"segment \[9, 11\] exceeds the 4 epochs of recipe.epochs: lower method.probe.start",
        ),
        (
            {
                "method": {
                    "probe": partial(GradCamRegions, explains="expert", classes=None, layer=None)
                }
            },
            "no layer of MLP gives maps",
        ),
        (
            {"evaluation_networks": {"narrow": TooFewLogits}},
            r"narrow returns outputs of shape \(3, 2\) for 3 images.* 3 classes",
        ),
        ({"network": TooFewLogits}, "network returns outputs of shape"),
        (
            {"method": {"probe": partial(raise_subject, explains="clean")}},
            "method.probe.explains is 'clean', .* one of expert, held-out, redrawn, or give "
            "experts.clean a",
        ),
        ({"evaluation": {"any": RefusingEvaluation()}}, r"refused: \['probe'\], 1, 3"),
        ({"recipe": refuse_to_train("network")}, "the recipe cannot train network"),
        (
            {"evaluation_networks": {"mlp": small_mlp}, "recipe": refuse_to_train("mlp")},
            "the recipe cannot train mlp",
        ),
        (
            {"evaluation": {"representations": RATIOS(networks=None)}},
            "evaluation.representations needs .* choose adversary=ensemble",
        ),
        (
            {"adversary": lambda *_: None, "evaluation": {"x": RATIOS(networks=["fine-tuned"])}},
            "networks has 'fine-tuned', and this study has no such .*: give some of expert, held-",
        ),
        (
            {
                "adversary": lambda *_: None,
                "fine_tuning": lambda *_: (),
                "evaluation": {"x": RATIOS(networks=["expert", "held-out", "fine-tuned", "clean"])},
            },
            "networks has 'clean', .* some of expert, held-out, fine-tuned, or null",
        ),
        (
            {"evaluation": {"adversarial_set": AdversarialSetAccuracy(shown=1, amplify=1)}},
            "evaluation.adversarial_set needs adversarial images, but this study makes none",
        ),
        (
            {"adversary": ensemble("expert", "vgg"), "evaluation_networks": {"other": small_mlp}},
            "adversary.members has 'vgg', .* give some of expert, held-out, other, or null",
        ),
        (
            {"experts": chosen_experts(evaluation_checkpoints={"a": "a.pt"})},
            "experts.evaluation_checkpoints has 'a', which is no evaluation network: there are "
            r"none, or add it with \+network@evaluation_networks.a=<network>",
        ),
        (
            {
                "experts": chosen_experts(evaluation_checkpoints={"a": "a.pt"}),
                "evaluation_networks": {"b": small_mlp, "c": small_mlp},
            },
            "which is no evaluation network: choose one of b, c, or add it with",
        ),
    ],
)
def test_an_impossible_study_is_refused_before_training(tmp_path, changes, message):
    study = make_study(tmp_path / "store", held_out=[1])
    for name, value in changes.items():
        setattr(study, name, value)
    configuration = {**CONFIGURATION, "recipe": {"epochs": 4}}
    with pytest.raises(ValueError, match=message):
        study.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)


@pytest.mark.parametrize("entry", ["none.pt", "none"])
def test_a_missing_file_is_refused_before_training(tmp_path, entry):
    with pytest.raises(ValueError, match=str(tmp_path / entry)):
        make_study(tmp_path / "store", tmp_path / entry, held_out=[1]).run(
            Results(tmp_path / "run"),
            CONFIGURATION,
            experiment="x",
            resumed=False,
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"seeds": [1], "held_out": [1]},
        {"seeds": [1], "early": EarlyExperts(seeds=[2, 1], epochs=1)},
        {"early": EarlyExperts(seeds=[7], epochs=1), "held_out": [7]},
        {"seeds": [3, 3]},
        {"purified": [4, 4]},
        {"evaluation_seeds": [0, 0]},
    ],
)
def test_a_repeated_seed_is_refused(tmp_path, settings):
    with pytest.raises(ValueError, match="seed . is repeated in experts.*: give each seed once"):
        trainable_study(tmp_path / "store", **settings)


def test_a_missing_checkpoint_of_an_evaluation_network_is_refused_before_training(tmp_path):
    study = trainable_study(tmp_path / "store", evaluation_checkpoints={"twin": "nowhere.pt"})
    study.evaluation_networks = {"twin": small_mlp}
    with pytest.raises(ValueError, match="the checkpoint nowhere.pt cannot be read"):
        run_to_subject(study, tmp_path / "run")
    assert not (tmp_path / "store").exists()


IMPORTED = {"seeds": [], "checkpoints": ["x.pt"]}
DISTILL = partial(Distill, span=2, start_min=0, start_max=2, images_per_class=1)
UNTRAINABLE = {
    "seeds": (
        {},
        {},
        "no training images, but experts.seeds need training: give experts.checkp",
    ),
    "early": (
        {"early": EarlyExperts(seeds=[3], epochs=1)},
        {},
        "but experts.seeds, experts.early.seeds need",
    ),
    "held-out": ({**IMPORTED, "held_out": [1]}, {}, "but experts.held_out need .*held_out=.."),
    "evaluation_networks": (
        IMPORTED,
        {"evaluation_networks": {"mlp": small_mlp}},
        "but experts.evaluation_seeds need .*seeds=..",
    ),
    "one evaluation network": (
        {**IMPORTED, "evaluation_checkpoints": {"a": "a.pt"}},
        {"evaluation_networks": {"a": small_mlp, "b": small_mlp}},
        "but experts.evaluation_seeds need .* or give experts.evaluation_checkpoints",
    ),
    "noise": (IMPORTED, {"corruption": NOISE}, "label noise needs training images"),
    "distill": (
        IMPORTED,
        {"method": {"cwx": DISTILL}},
        "method cwx needs two .* a network of experts.checkpoints has a single state: continue",
    ),
}


@pytest.mark.parametrize("case", UNTRAINABLE)
def test_training_without_training_images_is_refused(tmp_path, case):
    chosen, changes, message = UNTRAINABLE[case]
    study = make_study(tmp_path / "store")
    study.data, study.experts = image_data(BlobsWithoutTraining()), chosen_experts(**chosen)
    for name, value in changes.items():
        setattr(study, name, value)
    with pytest.raises(ValueError, match=message):
        study.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trajectories": ["a"], "checkpoints": ["b"]}, "both given: leave one of them empty"),
        ({"epoch": -1}, "experts.epoch is -1, negative: set it to null"),
        ({"checkpoints": ["b"], "epoch": 3}, "experts.epoch is 3, but experts.checkpoints have no"),
        ({"seeds": []}, "a study needs an expert"),
    ],
)
def test_impossible_experts_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        chosen_experts(**settings)


@pytest.mark.parametrize(
    ("epoch", "recorded", "changes", "message"),
    [
        (4, None, {}, "experts.epoch is 4, but recipe.epochs is 3: give 3 or less, or raise"),
        (2, 1, {}, "is 2, but recipe.recording.epochs=1 records only 0-1, 3: .* raise .* to 2"),
    ],
)
def test_an_epoch_out_of_reach_is_refused_before_training(
    tmp_path, epoch, recorded, changes, message
):
    study, configuration = study_at_epoch(epoch, tmp_path / "store", recorded=recorded, **changes)
    with pytest.raises(ValueError, match=message):
        study.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)
    assert not (tmp_path / "store").exists()


def test_an_epoch_missing_in_recorded_experts_is_refused(subject, tmp_path):
    paths = [str(t.path) for t in subject.trajectories]
    study, configuration = study_at_epoch(6, tmp_path / "store", trajectories=paths)
    with pytest.raises(ValueError, match=r"epoch 6 is not among those recorded in .* \(0-4\)"):
        study.run(Results(tmp_path / "run"), configuration, experiment="x", resumed=False)
