"""Studies without the command line: what they are built from, and what they hand to a method."""

import json

import pytest
from support.builders import image_data, small_mlp, trainer

from cwx.data.corruption import NoCorruption
from cwx.study.results import Results
from cwx.study.steps.adversary import NoAdversary
from cwx.study.steps.dataset_construction import NoConstruction
from cwx.study.steps.fine_tuning import NoFineTuning
from cwx.study.steps.purification import NoPurification
from cwx.study.study import Study
from cwx.training.experts import Early, Experts
from cwx.training.precision import Precision, Precisions

PLAIN = Precision(trainer="32-true", float32_matmul="highest")
CONFIGURATION = {"recipe": {}, "network": {}, "precision": {"experts": {}}}


class Reached(Exception):
    """Carries the subject that a method was built for."""


def reach(*, subject, **given):
    raise Reached(subject)


def chosen_experts(**changes):
    return Experts(
        **{
            "seeds": [0],
            "early": Early(seeds=[], epochs=1),
            "held_out": [],
            "clean": [],
            "purified": [],
            "evaluation_seeds": [0],
            "evaluation_checkpoints": {},
            "at_once": 1,
            "trajectories": [],
            "checkpoints": [],
            "epoch": None,
            **changes,
        }
    )


def study(store, *trajectories, held_out=(), corruption=None, paper=None):
    """It can train no expert: it has no recipe."""
    paths = [str(path) for path in trajectories]
    chosen = chosen_experts(held_out=held_out, trajectories=paths)
    return Study(
        data=image_data(),
        corruption=corruption or NoCorruption(),
        dataset_construction=NoConstruction(),
        adversary=NoAdversary(),
        fine_tuning=NoFineTuning(),
        purification=NoPurification(),
        network=small_mlp,
        evaluation_networks={},
        recipe=lambda **_: None,
        experts=chosen,
        method={"probe": reach},
        evaluation={},
        trainer=trainer,
        precision=Precisions(experts=PLAIN, methods=PLAIN),
        logger={},
        paper=paper or {},
        seed=0,
        store=str(store),
    )


def subject_of(made, folder):
    with pytest.raises(Reached) as caught:
        made.run(Results(folder / "run"), CONFIGURATION, experiment="x", resumed=False)
    return caught.value.args[0]


def accuracies(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return {n: value for n, value in metrics.items() if n.startswith("robustness")}
