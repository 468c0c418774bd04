"""Trajectories of other trainings are checked before any network is trained."""

import json
import logging
import re
from functools import partial
from itertools import combinations

import pytest
import torch
from support.builders import experts, small_mlp
from support.studies import (
    CONFIGURATION,
    chosen_experts,
    make_study,
    refuse_to_train,
    run_to_subject,
    subject_of,
    trainable_study,
)

import cwx
from cwx.evaluations.outcome import Outcome
from cwx.methods.distill import Distill
from cwx.storage.continued_training import CONTINUED
from cwx.study.results import Results
from cwx.training.build import build_network
from cwx.training.experts import ContinuedExperts, EarlyExperts
from cwx.training.plan import Plan


def record(folder, data, epochs, *, skip=()):
    """A recording of a network of the study whose weights grow."""
    network = build_network(small_mlp, data, seed=0)
    with cwx.TrajectoryRecorder(folder) as recorder:
        for epoch in range(epochs + 1):
            if epoch not in skip:
                recorder.record(network, epoch=epoch)
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter += 0.01


class Segmented:
    """A method that needs the segments [0, 1] to [2, 3]."""

    def __init__(self, *, subject, seed, stage):
        raise AssertionError

    def explanations(self):
        raise AssertionError

    @classmethod
    def check(cls, plan, *, stage, **_):
        plan.require_segments(f"method.{stage}", plan.epochs, span=1, start_min=0, start_max=2)


class SegmentedEvaluation:
    def check(self, plan):
        plan.require_segments("evaluation.own", {}, span=1, start_min=0, start_max=2)

    def __call__(self, subject, sources):
        return Outcome()


@pytest.mark.parametrize("part", ["method", "evaluation"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "but the trajectory {folder} has a single state (epoch 0)"),
        ({"epochs": 2}, "but the trajectory {folder} has epochs 0-2, not 3"),
        ({"epochs": 5, "skip": [2]}, "but the trajectory {folder} has epochs 0-1, 3-5, not 2"),
    ],
)
def test_segments_are_checked_before_any_training(subject, tmp_path, settings, message, part):
    folder = tmp_path / "recording"
    record(folder, subject.data, **settings)
    study = make_study(tmp_path / "store", folder, held_out=[5])
    study.recipe = refuse_to_train("held-out-5")
    study.method = {"own": partial(Segmented)} if part == "method" else {}
    study.evaluation = {"own": SegmentedEvaluation()} if part == "evaluation" else {}
    with pytest.raises(ValueError, match=re.escape(message.format(folder=folder))):
        study.run(Results(tmp_path / "run"), CONFIGURATION, experiment="x", resumed=False)


def test_a_recording_is_the_expert_of_a_study(subject, tmp_path):
    record(tmp_path / "recording", subject.data, 3)
    study = make_study(tmp_path / "store", tmp_path / "recording")
    (trajectory,) = subject_of(study, tmp_path).trajectories
    assert trajectory.path == tmp_path / "recording"
    assert trajectory.recorded_epochs == (0, 1, 2, 3)


def continued_study(store, checkpoint, **changes):
    """A study of a checkpoint whose training is continued; its networks train here."""

    def recipe(*, networks, data, seeds, epochs=2, **_):
        module = experts(data, seeds, epochs=epochs)
        module.networks = torch.nn.ModuleList(networks)
        return module

    study = trainable_study(store)
    study.recipe = recipe
    early = EarlyExperts(seeds=[0, 1], epochs=2, held_out=[100])
    study.experts = chosen_experts(
        ContinuedExperts,
        **{"early": early, "checkpoints": [str(checkpoint)], "evaluation_seeds": [], **changes},
    )
    return study


def save_checkpoint(path, data, seed):
    network = build_network(small_mlp, data, seed=seed)
    torch.save(network.state_dict(), path)
    return network.state_dict()


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_network_without_a_trajectory_is_trained_further(data, tmp_path, caplog):
    state = save_checkpoint(tmp_path / "net.pt", data, 7)
    # The page reads the settings of the run.
    (tmp_path / "run/.hydra").mkdir(parents=True)
    target = f"{ContinuedExperts.__module__}.{ContinuedExperts.__qualname__}"
    (tmp_path / "run/.hydra/config.yaml").write_text(f"experts: {{_target_: {target}}}")
    with caplog.at_level(logging.INFO, "cwx"):
        study = continued_study(tmp_path / "store", tmp_path / "net.pt", held_out=[5], clean=[6])
        subject = run_to_subject(study, tmp_path / "run")
    # The network itself is explained and evaluated; methods use the trajectories.
    (network,) = subject.experts()["expert"]
    assert equal(network.state_dict(), state)
    assert [*subject.experts()] == ["expert"]
    assert len(subject.fitted) == 2
    trajectories = [*subject.fitted, *subject.early_held_out]
    assert all(t.recorded_epochs == (0, 1, 2) and equal(t.state(0), state) for t in trajectories)
    ends = [t.state(2) for t in trajectories]
    assert not any(equal(a, b) for a, b in combinations(ends, 2))
    # The log, the metrics and the page name what it is.
    assert f"net.pt: {CONTINUED}, for 2 epochs" in caplog.text
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["continued_training/epochs"] == 2
    assert f"Trajectories: {CONTINUED}" in (tmp_path / "run/report.html").read_text()
    # Another checkpoint has other trajectories, even under the same name.
    save_checkpoint(tmp_path / "net.pt", data, 8)
    again = run_to_subject(continued_study(tmp_path / "store", tmp_path / "net.pt"), tmp_path / "2")
    paths = {t.path for t in trajectories}
    assert not paths & {t.path for t in (*again.fitted, *again.early_held_out)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoints": []}, "experts.checkpoints is empty"),
        ({"checkpoints": ["a.pt", "b.pt"]}, "there are 2 experts.checkpoints: name one file"),
        ({"early": EarlyExperts(seeds=[], epochs=2)}, "experts.early.seeds, which is empty"),
        ({"early": EarlyExperts(seeds=[1], epochs=0)}, "experts.early.epochs is 0"),
    ],
)
def test_an_impossible_continuation_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        continued_study(tmp_path / "store", "net.pt", **changes)


def test_a_network_of_a_single_state_names_the_remedy(data):
    plan = Plan(data=data, methods=[], held_out=1, epochs={"experts.checkpoints": 0})
    with pytest.raises(ValueError, match="continue its training on your images with experts=cont"):
        Distill.check(plan, stage="distill", span=1, start_min=0, start_max=1, images_per_class=1)
