"""Experts are trained further, from where they are shown, once."""

import json
import logging
from dataclasses import replace
from functools import partial

import pytest
import torch
from support import builders
from support.builders import BlobsWithoutTraining, experts, image_data, sgd, train_experts
from support.studies import CONFIGURATION, accuracies, chosen_experts, make_study
from torch import nn

from cwx.evaluations.accuracy import Accuracy
from cwx.functional.attacks import Attack, Linf
from cwx.functional.augmentation import Strategy
from cwx.methods.consistency import ConsistencyObjective
from cwx.methods.expert import Expert
from cwx.networks.convnet import ConvNet
from cwx.storage.recording import Recording
from cwx.storage.trajectories import TrajectoryStore
from cwx.study.results import Results
from cwx.study.steps.fine_tuning import FineTune, NoFineTuning
from cwx.training.plan import Plan
from cwx.training.subject import Subject

TARGETED = Attack(
    ball=Linf(), epsilon=255, scale=255, step=10, steps=3, random_start=False, targeted=True
)


def network(**shape):
    """A network with running statistics, which fine-tuning continues."""
    return ConvNet(**shape, depth=1, width=4, norm=nn.BatchNorm2d)


def recipe(**changes):
    """Consistency training of two epochs."""
    chosen = {
        "epochs": 2,
        "batch_size": 8,
        "augment": Strategy({}),
        "attack": TARGETED,
        "objective": partial(ConsistencyObjective, alpha=0.5, beta=0.1, layer=None),
        "optimizer": sgd(0.05),
        "schedule": None,
        "channels_last": False,
        "recording": Recording(epochs=0),
    }
    return partial(Expert, **{**chosen, **changes})


SETTINGS = {"recipe": {"epochs": 2, "recording": {"epochs": 0}}, "seed": 5}


def training(store, settings=SETTINGS, **changes):
    configuration = {"network": {}, "recipe": {"other": 1}, "precision": {"experts": {}}}
    configuration = {**configuration, "fine_tuning": settings, **changes}
    return builders.training(store, configuration, network=network, at_once=2)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Two experts and their data."""
    data = image_data()
    store = TrajectoryStore(tmp_path_factory.mktemp("experts"))
    return Subject(
        data=data,
        factory=network,
        trajectories=train_experts(data, [0, 1], store, at_once=2, network=network),
        held_out=[],
        evaluation_networks={},
    )


def equal(state, other):
    return all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("epoch", [None, 2])
def test_fine_tuning_starts_from_the_epoch_of_the_study(before, tmp_path, epoch):
    subject = replace(before, epoch=epoch)
    trajectories = FineTune(recipe=recipe(), seed=5)(subject, training(tmp_path))
    assert len(trajectories) == 2
    for fine_tuned, expert in zip(trajectories, before.trajectories, strict=True):
        assert fine_tuned.recorded_epochs == (0, 2)
        assert equal(fine_tuned.state(0), expert.state(4 if epoch is None else epoch))
        assert not equal(fine_tuned.state(2), fine_tuned.state(0))
        assert fine_tuned.identity["expert"] == expert.identity
        assert fine_tuned.identity["epoch"] == (4 if epoch is None else epoch)


def test_fine_tuned_networks_are_shared_through_the_store(before, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "cwx"):
        trajectories = FineTune(recipe=recipe(), seed=5)(before, training(tmp_path))
    assert "training (not in the store): fine-tuned-0, fine-tuned-1" in caplog.messages
    caplog.clear()
    # The index and the other experts do not matter.
    second = replace(before, trajectories=before.trajectories[1:])
    with caplog.at_level(logging.INFO, "cwx"):
        again = FineTune(recipe=recipe(), seed=5)(second, training(tmp_path))
    assert [t.path for t in again] == [trajectories[1].path]
    assert not [m for m in caplog.messages if "not in the store" in m]


def test_the_result_does_not_depend_on_the_other_experts(before, tmp_path):
    together, second = (
        FineTune(recipe=recipe(), seed=5)(
            replace(before, trajectories=chosen), training(tmp_path / str(len(chosen)))
        )
        for chosen in (before.trajectories, before.trajectories[1:])
    )
    assert equal(together[1].state(2), second[0].state(2))


@pytest.mark.parametrize("change", ["epoch", "seed", "recipe", "precision", "network", "data"])
def test_a_change_of_the_identity_trains_another_network(before, tmp_path, change):
    fine_tune, subject, changes = FineTune(recipe=recipe(), seed=5), before, {}
    if change == "epoch":
        subject = replace(before, epoch=3)
    elif change == "seed":
        fine_tune = FineTune(recipe=recipe(), seed=6)
    elif change == "recipe":
        changes = {"settings": {"recipe": {"epochs": 2, "alpha": 1}}}
    elif change == "data":
        marks = torch.zeros(60, dtype=torch.bool)
        marks[0] = True
        subject = replace(before, data=before.data.without(marks))
    else:
        changes = {change: {"experts": "other"}}
    first = FineTune(recipe=recipe(), seed=5)(before, training(tmp_path))
    other = fine_tune(subject, training(tmp_path, **changes))
    assert not {t.path for t in first} & {t.path for t in other}


class PowerCut(Exception):
    pass


def test_an_interrupted_fine_tuning_resumes_to_the_same_weights(before, tmp_path):
    whole = FineTune(recipe=recipe(), seed=5)(before, training(tmp_path / "whole"))

    def failing(**settings):
        module = recipe()(**settings)
        step = module.training_step

        def training_step(batches, batch_idx):
            if module.global_step == 11:  # in the second epoch
                raise PowerCut
            return step(batches, batch_idx)

        module.training_step = training_step
        return module

    with pytest.raises(PowerCut):
        FineTune(recipe=failing, seed=5)(before, training(tmp_path / "cut"))
    assert not list((tmp_path / "cut").glob("*/complete.json"))
    resumed = FineTune(recipe=recipe(), seed=5)(before, training(tmp_path / "cut"))
    assert [t.path.name for t in resumed] == [t.path.name for t in whole]
    for trajectory, expected in zip(resumed, whole, strict=True):
        assert equal(trajectory.state(2), expected.state(2))


def test_no_fine_tuning_trains_nothing(before, tmp_path):
    assert NoFineTuning()(before, training(tmp_path)) == ()
    assert not list(tmp_path.iterdir())


def plan(data):
    return Plan(data=data, methods=[], held_out=0, networks={"network": network})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack": None}, "in fine_tuning.recipe: recipe.attack is none"),
        ({"epochs": 0}, "in fine_tuning.recipe: recipe.epochs is 0: give 1 or more"),
        (
            {"objective": partial(ConsistencyObjective, alpha=0.5, beta=0.1, layer="feature")},
            "in fine_tuning.recipe: recipe.layer is 'feature', .* give one such as features",
        ),
    ],
)
def test_an_impossible_recipe_is_refused_before_training(changes, message):
    data = image_data()
    FineTune(recipe=recipe(), seed=0).check(plan(data))
    with pytest.raises(ValueError, match=message):
        FineTune(recipe=recipe(**changes), seed=0).check(plan(data))


def test_data_without_training_images_are_refused():
    with pytest.raises(
        ValueError, match="fine-tuning needs training images, but the data have none: choose data"
    ):
        FineTune(recipe=recipe(), seed=0).check(plan(image_data(BlobsWithoutTraining())))


def fine_tuning_study(store, **chosen):
    """A study that fine-tunes experts, trained or imported, and measures accuracies."""
    study = make_study(store)
    study.network, study.experts = network, chosen_experts(**chosen)
    study.recipe = lambda *, data, seeds, **_: experts(data, seeds, network=network, epochs=2)
    study.fine_tuning = FineTune(recipe=recipe(), seed=5)
    study.method, study.evaluation = (
        {},
        {"accuracy": Accuracy(attacks={}, images=None, evaluation_networks=False, top=[1])},
    )
    return study


@pytest.mark.parametrize("kind", ["trained", "checkpoints"])
def test_a_study_evaluates_experts_and_fine_tuned_networks(before, tmp_path, kind):
    chosen = {"seeds": [0, 1], "at_once": 2}
    if kind == "checkpoints":
        path = tmp_path / "foreign.pt"
        torch.save(before.trained_network(before.trajectories[0]).state_dict(), path)
        chosen = {"seeds": [], "checkpoints": [str(path)]}
    study = fine_tuning_study(tmp_path / "store", **chosen)
    study.run(
        Results(tmp_path / "run"),
        {**CONFIGURATION, "fine_tuning": SETTINGS},
        experiment="x",
        resumed=False,
    )
    assert accuracies(tmp_path / "run").keys() == {
        "accuracy/expert/clean", "accuracy/fine-tuned/clean",
    }  # fmt: skip
    identities = [json.loads(p.read_text()) for p in (tmp_path / "store").glob("*/identity.json")]
    fine_tuned = [identity for identity in identities if "expert" in identity]
    assert len(fine_tuned) == (1 if kind == "checkpoints" else 2)
    for identity in fine_tuned:
        assert identity["expert"] in identities
        assert identity["epoch"] == (0 if kind == "checkpoints" else 2)


def test_a_study_refuses_an_impossible_recipe_before_training(tmp_path):
    study = fine_tuning_study(tmp_path / "store", seeds=[0])
    study.fine_tuning = FineTune(recipe=recipe(attack=None), seed=5)
    with pytest.raises(ValueError, match="in fine_tuning.recipe: recipe.attack is none"):
        study.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)
    assert not (tmp_path / "store").exists()
