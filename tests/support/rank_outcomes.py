"""A script: the outcomes of evaluations on one of several ranks, as rank 0 writes them.

Arguments: the folder of the store, the rank, the number of ranks, and a file to write.
"""

import json
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from safetensors.torch import load
from support.attacked import swapped
from support.builders import image_data, small_convnet, train_experts
from support.studies import CONTRIBUTIONS, DETECTION, RATIOS, TRACES
from torch import distributed as dist

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.corruption import Backdoor
from cwx.data.taxonomy import Flat
from cwx.evaluations.accuracy import Accuracy
from cwx.evaluations.adversarial.adversarial_set import AdversarialSetAccuracy
from cwx.evaluations.atlas.evaluation import NeuronAtlas
from cwx.evaluations.backdoor.attack_success import AttackSuccess
from cwx.evaluations.backdoor.poisoned_groups import PoisonedGroups
from cwx.evaluations.confusion import Confusion
from cwx.evaluations.discriminative import Discriminative
from cwx.evaluations.diversity import Diversity
from cwx.evaluations.fidelity.evaluation import Fidelity
from cwx.evaluations.from_scratch import FromScratch
from cwx.evaluations.neuron_pairs.evaluation import NeuronPairs
from cwx.evaluations.neurons.evaluation import Neurons
from cwx.evaluations.neurons.figures import Sheet
from cwx.evaluations.outcome import Outcome
from cwx.evaluations.patterns.attention import Attention
from cwx.evaluations.patterns.cascade import PatternCascade
from cwx.evaluations.patterns.controls import PatternControls
from cwx.evaluations.patterns.predictive_power import PredictivePower
from cwx.evaluations.patterns.tolerance import PatternTolerance
from cwx.evaluations.verdict.cure import CureOutcome
from cwx.evaluations.verdict.evaluation import Verdict
from cwx.evaluations.verdict.statistics import MarginRatio, PatternSuccess, PerturbationSuccess
from cwx.explanations.images import Explanations
from cwx.explanations.margins import Margins
from cwx.explanations.patterns import Patterns, Perturbations
from cwx.functional.attacks import Attack, Linf
from cwx.functional.augmentation import Strategy
from cwx.functional.backdoor import AllToOne, Patch
from cwx.functional.inner_loop import Inner
from cwx.functional.rng import stream
from cwx.functional.top_activations import spatial_maximum
from cwx.storage.shards import Shards
from cwx.storage.trajectories import TrajectoryStore
from cwx.study.steps.evaluation import evaluate, evaluate_on_all_ranks
from cwx.training.cure import Cure
from cwx.training.ranks import Ranks
from cwx.training.subject import Subject

PGD = Attack(ball=Linf(), epsilon=20, scale=255, step=8, steps=3, random_start=True, targeted=False)
INNER = Inner(steps=3, learning_rate=0.1, momentum=0.0, batch_size=None, augment=Strategy({}))


class Failing:
    """Fails on the last rank alone."""

    on_all_ranks = True

    def __call__(self, subject, sources):
        def compute():
            if subject.ranks.index == subject.ranks.count - 1:
                raise ValueError("the images of the last rank are damaged")
            return 1

        subject.ranks.collect(compute)
        return Outcome()


class Poisoned:
    """The attack success of networks on other data: those of the study are clean."""

    on_all_ranks = True

    def __call__(self, subject, sources):
        data = image_data()
        patch = Patch(size=2, corner="top-right", margin=0, first_pixel="white")
        data.corrupt(Backdoor(trigger=patch, target="right", rate=0.1, variant=AllToOne(), seed=0))
        return AttackSuccess()(replace(subject, data=data), sources)


class Cured:
    """Measures the removal of a trigger; the expert of another seed stands for the result."""

    on_all_ranks = True

    def __call__(self, subject, sources):
        cure = Cure(
            label=1,
            attach=sources["perturbations"].attach(1),
            networks={"unlearned": subject.first_network("held-out")},
            used=sources["perturbations"].searched,
        )
        return CureOutcome()(replace(subject, cure=cure), sources)


class FailingAlone:
    """Fails on the last rank before it joins the others."""

    on_all_ranks = True

    def __call__(self, subject, sources):
        if subject.ranks.index == subject.ranks.count - 1:
            raise ValueError("the images of the last rank are damaged")
        return Outcome({"failing/ranks": sum(subject.ranks.collect(lambda: 1))})


EVALUATIONS = {
    "accuracy": Accuracy(attacks={"pgd": PGD}, images=None, evaluation_networks=False, top=[1, 2]),
    "diversity": Diversity(),
    "fidelity": Fidelity(
        source="images", inner=INNER, span=2, start_min=0, start_max=2, calibrated=1,
        real_batch_size=4, real_augment=None, images=None,
    ),
    "from_scratch": FromScratch(inner=INNER, steps=2, rates=[0.1, 0.3], seeds=3, images=None),
    "contributions": CONTRIBUTIONS(images=20),
    "neurons": Neurons(
        networks=None, layers=None, before_nonlinearity=False, fraction=0.2,
        taxonomy=Flat(), activation=spatial_maximum, sigma=1.0, high=0.5, bins=3, noise=True,
        sheet=Sheet(layer=None, neurons=2, images=3, occluder=2, stride=1, threshold=0.5),
    ),
    "neuron_atlas": NeuronAtlas(
        networks=None, layers=None, before_nonlinearity=False, fraction=0.2,
        taxonomy=Flat(), activation=spatial_maximum, sigma=1.0, images=3,
    ),
    "predictive_power": PredictivePower(
        sizes=[0.25, 0.5], gammas=[0.5], images=None, canvas_choice="highest_power"
    ),
    "pattern_controls": PatternControls(
        source="patterns", redrawn=None, shuffled=None, sizes=[0.25], images=None, draws=2
    ),
    "pattern_cascade": PatternCascade(source="patterns", size=0.25, images=None),
    "pattern_tolerance": PatternTolerance(
        source="patterns", size=0.25, images=None, shifts=[1], noise=[60.0, 200.0], jpeg=[50]
    ),
    "attention": Attention(source="patterns", size=0.25, images=3, layer=None),
    "traces": TRACES(images=5, fraction=0.2, ablation="mean"),
    "attack_success": Poisoned(),
    "cure": Cured(),
    "poisoned_groups": PoisonedGroups(layer=None, components=4, restarts=3),
    "neuron_pairs": NeuronPairs(
        network="expert", layers=None, before_nonlinearity=True, fraction=0.4,
        activation=spatial_maximum, taxonomy=Flat(), sigma=1.0, pairs=2, strata=1, repeated=0.5,
        occluder=1, stride=1, threshold=0.5, seed=0,
    ),
    "discriminative": Discriminative(),
    "confusion": Confusion(most=3),
    "adversarial_set": AdversarialSetAccuracy(shown=2, amplify=5.0),
    "representations": RATIOS(networks=None),
    "adversarial_detection": DETECTION(),
    "verdict": Verdict(
        statistics={
            "patterns": PatternSuccess(source="patterns", sizes=[0.25], images=20),
            "perturbations": PerturbationSuccess(source="perturbations", images=20),
            "margins": MarginRatio(source="margins"),
        },
        alpha=0.05, accuracy_drop=0.1, least_images=10, images=10,
    ),
}  # fmt: skip


def subject(store):
    """Read from the store; trained if they are missing."""
    data = image_data()
    trajectories = train_experts(data, [0, 1], store, at_once=2, network=small_convnet)
    return Subject(
        data=data,
        factory=small_convnet,
        trajectories=trajectories[:1],
        held_out=trajectories[1:],
        evaluation_networks={},
        adversarial=attacked(data, store.root / "adversarial"),
    )


def attacked(data, folder):
    """Written by a single process, which runs before several."""
    if not folder.exists():
        return swapped(data, folder)
    return AdversarialSet.from_shards(
        Shards.open(folder), members=["expert"], attacked=["expert"], metrics={}
    )


def sources(data):
    count, shape = len(data.classes), data.image_shape
    labels = torch.arange(count).repeat_interleave(2)
    searched = torch.zeros(len(data.splits.test), dtype=torch.bool)
    searched[::3] = True
    masks = torch.rand(2, len(labels), *shape[1:], generator=stream(1))
    patterns = [
        Patterns(
            explains=explains,
            masks=of_network,
            canvases=torch.rand(len(labels), *shape, generator=stream(2)),
            labels=labels,
            searched=searched,
        )
        for explains, of_network in zip(("expert", "redrawn/1"), masks, strict=True)
    ]
    images = Explanations(torch.randn(len(labels), *shape, generator=stream(3)), labels)
    return {
        "images": images,
        "patterns": patterns[0],
        "redrawn": patterns[1],
        "perturbations": Perturbations(
            explains="expert",
            deltas=torch.rand(count, *shape, generator=stream(4)) - 0.5,
            labels=torch.arange(count),
            epsilons=torch.full((count,), 0.5),
            searched=searched,
        ),
        "margins": Margins(
            explains="expert",
            unit_images=torch.rand(count, *shape, generator=stream(5)),
            labels=torch.arange(count),
            start_margins=torch.rand(count, 2, generator=stream(6)),
        ),
    }


def main(store, rank, count, out, *names):
    rank, count = int(rank), int(count)
    if count > 1:
        file = f"file://{store}/group-{'-'.join([str(count), *names])}"
        dist.init_process_group("gloo", init_method=file, rank=rank, world_size=count)
    evaluations = {**EVALUATIONS, "failing": Failing(), "failing_alone": FailingAlone()}
    chosen = {name: evaluations[name] for name in names or EVALUATIONS}
    explained = subject(TrajectoryStore(Path(store)))
    given = chosen, explained, sources(explained.data)
    assert Ranks.running() == Ranks(rank, count)
    if rank > 0:
        evaluate_on_all_ranks(*given)
        return
    outcomes = evaluate(*given)
    Path(out).write_text(
        json.dumps(
            {name: [o.metrics, o.tables, [*o.figures], contents(o)] for name, o in outcomes.items()}
        )
    )


def contents(outcome):
    """The pictures and tensors in the files of an outcome; NaN is a number that equals itself."""
    pictures = {
        file: sha256(content).hexdigest()
        for file, content in outcome.files.items()
        if file.endswith(".png")
    }
    return pictures | {
        f"{file}/{name}": [str(values.dtype), values.double().nan_to_num(-7).tolist()]
        for file, content in outcome.files.items()
        if file not in pictures
        for name, values in load(content).items()
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
