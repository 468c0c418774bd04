"""Trajectories of other trainings are checked before any network is trained."""

import re
from functools import partial

import pytest
import torch
from support.builders import small_mlp
from support.studies import CONFIGURATION, make_study, refuse_to_train, subject_of

import cwx
from cwx.evaluations.outcome import Outcome
from cwx.study.results import Results
from cwx.training.build import build_network


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
