"""Every evaluation runs where the networks are on another device than the images."""

from dataclasses import replace

import pytest
import torch
from support import rank_outcomes
from support.second_device import DEVICE, SecondDevice

from cwx.storage.trajectories import TrajectoryStore

# The device of the tests does not carry the values of `traces` faithfully.
NAMES = [name for name in rank_outcomes.EVALUATIONS if name != "traces"]
# Numbers of a second pass over the same images, on the same processor.
TOLERANCE = 1e-6


# Evaluations after one another, as in a study: none may change the networks of the next.
@pytest.fixture(scope="module")
def study(tmp_path_factory):
    subject = rank_outcomes.subject(TrajectoryStore(tmp_path_factory.mktemp("store")))
    evaluation_network = subject.first_network("held-out")
    return replace(subject, evaluation_networks={"other": [evaluation_network]})


@pytest.mark.parametrize("name", NAMES)
def test_an_evaluation_moves_images_to_the_device_of_the_networks(study, name):
    evaluation = rank_outcomes.EVALUATIONS[name]
    sources = rank_outcomes.sources(study.data)
    expected = evaluation(study, sources).metrics
    with SecondDevice():
        found = evaluation(replace(study, device=DEVICE), sources).metrics
    assert found == pytest.approx(expected, rel=TOLERANCE, nan_ok=True)
    # The networks of the study stay where they are.
    (network,) = study.evaluation_networks["other"]
    assert {tensor.device for tensor in network.parameters()} == {torch.device("cpu")}
