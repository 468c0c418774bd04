"""Studies built without the command line, and access to their subject."""

import json
from functools import partial

import pytest
from support.builders import experts, image_data, small_mlp, trainer

from cwx.data.corruption import LabelNoise, NoCorruption
from cwx.data.taxonomy import Flat
from cwx.evaluations.adversarial.adversarial_detection import AdversarialDetection
from cwx.evaluations.adversarial.representations import Representations
from cwx.evaluations.contributions.evaluation import Contributions
from cwx.evaluations.outcome import Outcome
from cwx.evaluations.traces.evaluation import Traces
from cwx.functional.class_gaussians import Tied
from cwx.functional.label_noise import Uniform
from cwx.functional.representation_distance import flat, mean_over_positions
from cwx.functional.top_activations import spatial_maximum
from cwx.storage.recording import Recording
from cwx.study.results import Results
from cwx.study.steps.adversary import Ensemble, NoAdversary
from cwx.study.steps.cure import NoCure
from cwx.study.steps.dataset_construction import NoConstruction
from cwx.study.steps.fine_tuning import NoFineTuning
from cwx.study.steps.purification import NoPurification
from cwx.study.study import Study
from cwx.training.bank import BankSource
from cwx.training.experts import EarlyExperts, Experts
from cwx.training.precision import Precision, Precisions

PLAIN = Precision(trainer="32-true", float32_matmul="highest")
CONFIGURATION = {"recipe": {}, "network": {}, "precision": {"experts": {}}}
NOISE = LabelNoise(kind=Uniform(), rate=0.5, seed=0)
RATIOS = partial(
    Representations, layer=None, before_nonlinearity=False, pooling=flat, per_class=None
)
DETECTION = partial(
    AdversarialDetection,
    networks=None,
    layer=None,
    before_nonlinearity=False,
    pooling=mean_over_positions,
    covariance=Tied(ridge=1e-6),
)
TRACES = partial(
    Traces,
    networks=None,
    layer=None,
    before_nonlinearity=False,
    files=[],
    neurons=2,
    threshold=0.0,
    ablation="zero",
    activation=spatial_maximum,
    taxonomy=Flat(),
    sigma=1.0,
)
CONTRIBUTIONS = partial(
    Contributions,
    networks=None,
    layer=None,
    before_nonlinearity=False,
    ablation="zero",
    draws=4,
    limit=64,
    activation=spatial_maximum,
    fraction=0.2,
    taxonomy=Flat(),
    sigma=1.0,
    pooling=mean_over_positions,
    covariance=Tied(ridge=1e-6),
)


class SubjectReached(Exception):
    """Carries the subject that a method was built for."""


def raise_subject(*, subject, **settings):
    raise SubjectReached(subject)


def chosen_experts(kind=Experts, **changes):
    return kind(
        **{
            "seeds": [0],
            "early": EarlyExperts(seeds=[], epochs=1),
            "held_out": [],
            "clean": [],
            "bank": BankSource(),
            "purified": [],
            "evaluation_seeds": [0],
            "evaluation_checkpoints": {},
            "at_once": 1,
            "checkpoint_minutes": None,
            "trajectories": [],
            "checkpoints": [],
            "epoch": None,
            # Networks of a few epochs on a few images.
            "check_accuracy": False,
            **changes,
        }
    )


def make_study(store, *trajectories, held_out=(), corruption=None, paper=None):
    """A study of recorded trajectories; it cannot train experts, because it has no recipe."""
    paths = [str(path) for path in trajectories]
    return Study(
        data=image_data(),
        corruption=corruption or NoCorruption(),
        dataset_construction=NoConstruction(),
        adversary=NoAdversary(),
        fine_tuning=NoFineTuning(),
        purification=NoPurification(),
        cure=NoCure(),
        network=small_mlp,
        evaluation_networks={},
        recipe=lambda **_: None,
        experts=chosen_experts(held_out=held_out, trajectories=paths),
        method={"probe": raise_subject},
        evaluation={},
        notes=[],
        trainer=trainer,
        precision=Precisions(experts=PLAIN, methods=PLAIN),
        logger={},
        paper=paper or {},
        seed=0,
        store=str(store),
    )


def subject_of(study, folder):
    """The subject that the study passes to its method."""
    with pytest.raises(SubjectReached) as caught:
        study.run(Results(folder / "run"), CONFIGURATION, experiment="x", resumed=False)
    return caught.value.args[0]


def accuracies(folder):
    """The accuracies among the metrics of a run."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {n: value for n, value in metrics.items() if n.startswith("accuracy")}


def ensemble(*members):
    """An adversary that attacks these networks, or all."""
    return Ensemble(
        members=members or None, targets=2, images=None, weight=0.001, scale=255, step=20, steps=8,
        epsilon=None, adaptive=False, batch_size=10,
    )  # fmt: skip


def refuse_to_train(name):
    """A recipe that refuses the network of this name."""

    def recipe(*, stages, **_):
        if stages == [name]:
            raise ValueError(f"the recipe cannot train {name}")

    return recipe


class SubjectRecorder:
    """An evaluation that stores its subject."""

    def __call__(self, subject, sources):
        self.subject = subject
        return Outcome()


def trainable_study(store, **changes):
    """A study that trains its experts; `changes` are settings of the experts."""
    study = make_study(store)
    study.recipe = lambda *, data, seeds, epochs=2, **_: experts(data, seeds, epochs=epochs)
    settings = {"purified": [0, 1], "evaluation_seeds": [], "at_once": 2, **changes}
    study.experts = chosen_experts(**settings)
    return study


def run_to_subject(study, folder):
    """Run the study without methods; returns the subject that evaluations receive."""
    recorder = SubjectRecorder()
    study.method, study.evaluation = {}, {"recorder": recorder}
    study.run(Results(folder), CONFIGURATION, experiment="x", resumed=False)
    return recorder.subject


def study_at_epoch(epoch, store, *, recorded=None, **changes):
    """A study of an expert of 3 epochs, explained at `epoch`, and its configuration."""
    study = trainable_study(store, epoch=epoch, **changes)
    recording = Recording(epochs=recorded)
    study.recipe = lambda *, data, seeds, **_: experts(data, seeds, epochs=3, recording=recording)
    recipe = {"epochs": 3, "recording": {"epochs": recorded}}
    return study, {**CONFIGURATION, "recipe": recipe}
