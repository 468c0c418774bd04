"""No class name changes what an evaluation writes: names of metrics, tables, rows and figures."""

import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from support.attacked import swapped
from support.builders import image_data
from support.configurations import CONF
from support.studies import CONTRIBUTIONS, TRACES

from cwx.data.corruption import Backdoor
from cwx.data.taxonomy import Flat
from cwx.evaluations.accuracy import Accuracy
from cwx.evaluations.adversarial.adversarial_detection import AdversarialDetection
from cwx.evaluations.adversarial.adversarial_set import AdversarialSetAccuracy
from cwx.evaluations.adversarial.representations import Representations
from cwx.evaluations.atlas.evaluation import NeuronAtlas
from cwx.evaluations.backdoor.attack_success import AttackSuccess
from cwx.evaluations.backdoor.poison_detection import PoisonDetection
from cwx.evaluations.backdoor.poisoned_groups import PoisonedGroups
from cwx.evaluations.backdoor.revealed_trigger import RevealedTrigger
from cwx.evaluations.confusion import Confusion
from cwx.evaluations.discriminative import Discriminative
from cwx.evaluations.diversity import Diversity
from cwx.evaluations.fidelity.evaluation import Fidelity
from cwx.evaluations.from_scratch import FromScratch
from cwx.evaluations.gallery import Gallery
from cwx.evaluations.neuron_pairs.evaluation import NeuronPairs
from cwx.evaluations.neurons.evaluation import Neurons
from cwx.evaluations.patterns.attention import Attention
from cwx.evaluations.patterns.cascade import PatternCascade
from cwx.evaluations.patterns.controls import PatternControls
from cwx.evaluations.patterns.predictive_power import PredictivePower
from cwx.evaluations.patterns.tolerance import PatternTolerance
from cwx.evaluations.usual_ways import UsualWays
from cwx.evaluations.verdict.cure import CureOutcome
from cwx.evaluations.verdict.evaluation import Verdict
from cwx.evaluations.verdict.statistics import TriggerSize
from cwx.explanations.patterns import Patterns, Triggers
from cwx.functional.augmentation import Strategy
from cwx.functional.backdoor import AllToOne, Patch
from cwx.functional.class_gaussians import Tied
from cwx.functional.inner_loop import Inner
from cwx.functional.representation_distance import flat
from cwx.functional.rng import stream
from cwx.functional.top_activations import spatial_maximum
from cwx.training.cure import Cure

SEGMENTS = {
    "span": 2, "start_min": 0, "start_max": 2, "calibrated": 1, "real_batch_size": 4,
    "real_augment": None, "images": None,
}  # fmt: skip
INNER = Inner(steps=0, learning_rate=0.1, momentum=0.0, batch_size=None, augment=Strategy({}))
AUDIT = {
    "layers": None, "fraction": 0.2, "activation": spatial_maximum, "taxonomy": Flat(),
    "sigma": 1.0,
}  # fmt: skip
LAYER = {"networks": None, "layer": None, "before_nonlinearity": False, "pooling": flat}
# By the class of the evaluation, as in conf/evaluation.
EVALUATIONS = {
    build.func: build
    for build in (
        partial(Accuracy, attacks={}, images=None, evaluation_networks=True, top=[1, 2]),
        partial(AdversarialDetection, **LAYER, covariance=Tied(ridge=0.1)),
        partial(AdversarialSetAccuracy, shown=3, amplify=4.0),
        partial(Representations, **LAYER, per_class=None),
        partial(AttackSuccess),
        partial(PoisonDetection, separation=0.0),
        partial(PoisonedGroups, layer=None, components=3, restarts=2),
        partial(RevealedTrigger, images=20, seconds=True),
        partial(Confusion, most=5),
        partial(Discriminative),
        partial(Diversity),
        partial(Fidelity, source="images", inner=INNER, **SEGMENTS),
        partial(FromScratch, inner=INNER, steps=2, rates=[0.1], seeds=1, images=None),
        partial(Gallery, titles={}, baselines=["real", "mean"]),
        partial(
            Neurons,
            networks=None,
            before_nonlinearity=False,
            **AUDIT,
            high=0.5,
            bins=3,
            noise=True,
            sheet=None,
        ),
        partial(
            NeuronAtlas,
            networks=None,
            before_nonlinearity=True,
            **AUDIT,
            images=2,
        ),
        partial(
            NeuronPairs,
            network="expert",
            before_nonlinearity=True,
            **AUDIT,
            pairs=2,
            strata=1,
            repeated=0.5,
            occluder=2,
            stride=1,
            threshold=0.5,
            seed=0,
        ),
        partial(PatternCascade, source="patterns", size=0.25, images=None),
        partial(Attention, source="patterns", size=0.25, images=2, layer=None),
        partial(
            PatternControls,
            source="patterns",
            redrawn=None,
            shuffled="patterns",
            sizes=[0.25],
            images=None,
            draws=2,
        ),
        partial(
            PatternTolerance,
            source="patterns",
            size=0.25,
            images=None,
            shifts=[1],
            noise=[4.0],
            jpeg=[75],
        ),
        partial(
            PredictivePower,
            sizes=[0.25, 0.5],
            gammas=[0.5],
            images=None,
            canvas_choice="highest_power",
        ),
        partial(CONTRIBUTIONS, images=4),
        partial(TRACES, images=2, fraction=0.2),
        partial(UsualWays, most=3),
        partial(
            Verdict,
            statistics={"size": TriggerSize(source="triggers")},
            alpha=0.05,
            accuracy_drop=0.1,
            least_images=3,
            images=20,
        ),
        partial(CureOutcome),
    )
}
PLAIN = ("cat", "dog", "frog")
# Parts of the names of metrics, and what is special in files or on pages.
HOSTILE = [
    ("std", "mean", "class"),
    ("top-1", "std/top-1", "class/std"),
    ("..", ".", "/"),
    ("name " * 60, "name " * 59 + "x", "é日本$x$"),
]
# As the first ones, but in other metrics. A metric that `class_metric` does not name fails with
# any of these names.
FURTHER = [
    ("a/b", "a%2Fb", "a"),
    ("min", "max", "all"),
    ("target", "others", "overall"),
    ("power", "power/x", "0.25"),
    ("expert", "held-out", "clean"),
]


@pytest.fixture(scope="module")
def attacked(convolutional, tmp_path_factory):
    """A subject with a backdoor and adversarial images, and the outputs of two methods."""
    data = image_data()
    data.corrupt(
        Backdoor(
            trigger=Patch(size=1, corner="top-left", margin=0, first_pixel="white"),
            target=1,
            rate=0.2,
            variant=AllToOne(),
            seed=0,
        )
    )
    adversarial = swapped(data, tmp_path_factory.mktemp("adversarial"))
    held_out = convolutional.trajectories
    subject = replace(convolutional, data=data, adversarial=adversarial, held_out=held_out)
    searched = torch.zeros(len(data.splits.test), dtype=torch.bool)
    searched[::3] = True
    masks = torch.rand(6, *data.image_shape[1:], generator=stream(1))
    canvases = torch.rand(6, *data.image_shape, generator=stream(2))
    labels = torch.arange(3).repeat_interleave(2)
    patterns = Patterns(
        explains="expert", masks=masks, canvases=canvases, labels=labels, searched=searched
    )
    triggers = Triggers(
        explains="expert",
        masks=masks[:3],
        patterns=canvases[:3],
        labels=torch.arange(3),
        success=torch.ones(3),
        required=torch.tensor(0.95),
        searched=searched,
    )
    # The networks of a cure are not of interest here.
    fine_tuned = dict.fromkeys(("unlearned", "control"), subject.trajectories[1])
    networks = {
        name: subject.trained_network(trajectory) for name, trajectory in fine_tuned.items()
    }
    cure = Cure(label=1, attach=triggers.attach(1), networks=networks, used=searched)
    sources = {"images": subject.real_images(3), "patterns": patterns, "triggers": triggers}
    sources["redrawn"] = replace(patterns, explains="redrawn/1")
    return replace(subject, cure=cure), sources


def outcome_of(evaluate, attacked, classes):
    """The outcome for classes of these names."""
    subject, sources = attacked
    data = subject.data.uncorrupted()
    data._splits = replace(subject.data.splits, classes=classes)
    data.splits.check()
    return evaluate()(replace(subject, data=data), sources)


def shapes(outcome):
    """What an outcome holds, without the names of metrics and classes."""
    values = [repr(value) for value in outcome.metrics.values() if not math.isnan(value)]
    tables = {name: [tuple(row) for row in rows] for name, rows in outcome.tables.items()}
    return len(outcome.metrics), sorted(values), tables, sorted(outcome.figures)


def test_every_evaluation_of_the_configuration_is_tried():
    files = (CONF / "evaluation").glob("*.yaml")
    targets = set(
        re.findall(r"_target_: (cwx\.evaluations\S+)", "".join(map(Path.read_text, files)))
    )
    tried = {f"{kind.__module__}.{kind.__name__}" for kind in EVALUATIONS}
    parts = ("Sheet", "verdict.statistics")
    assert {t for t in targets if not any(part in t for part in parts)} == tried


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(HOSTILE, id="hostile"),
        pytest.param(FURTHER, id="further", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", EVALUATIONS, ids=lambda kind: kind.__name__)
def test_no_name_of_a_class_changes_the_names_of_metrics(attacked, kind, names):
    plain = outcome_of(EVALUATIONS[kind], attacked, PLAIN)
    for classes in names:
        outcome = outcome_of(EVALUATIONS[kind], attacked, classes)
        assert shapes(outcome) == shapes(plain)
        # The metrics that no class has stay the same.
        common = {name: value for name, value in plain.metrics.items() if "/class/" not in name}
        assert common.items() <= outcome.metrics.items()
        assert not any("/" in name or ".." in name for name in [*outcome.tables, *outcome.figures])
