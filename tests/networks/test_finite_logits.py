"""A network whose outputs are not finite has no prediction, and no accuracy of chance."""

import math
import re

import pytest
import torch
from support.builders import image_data, small_convnet, train_experts
from support.paths import ROOT
from torch import nn

from cwx.data.canvases import test_logits as logits_of_test_images
from cwx.evaluations.adversarial.features import LayerChoice, feature_extractor
from cwx.evaluations.discriminative import scores
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.predictions import divided_accuracy, divided_logits, matching_fraction
from cwx.functional.representation_distance import flat
from cwx.networks.eval_mode import accuracy
from cwx.networks.finite_logits import NotFiniteError, finite_logits, predicted
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.subject import Subject

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("row", [[NAN, 1.0], [1.0, NAN], [INF, 1.0], [-INF, -INF], [NAN, NAN]])
def test_logits_without_a_highest_are_refused(row):
    logits = torch.tensor([[0.0, 1.0], row])
    with pytest.raises(NotFiniteError, match=r"1 of 2 images are not finite.*lower recipe"):
        finite_logits(logits)
    assert predicted(logits).tolist() == [1, -1]


def test_the_logarithm_of_a_probability_of_zero_has_a_highest():
    logits = torch.tensor([[-INF, 0.0], [2.0, 2.0]])
    assert finite_logits(logits) is logits
    assert predicted(logits).tolist() == [1, 0]


class Diverged(nn.Module):
    """Its weights have become NaN, which no training step has seen."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        with torch.no_grad():
            next(iter(network.parameters())).fill_(NAN)

    def forward(self, images):
        return self.network(images)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    data = image_data()
    (trajectory,) = train_experts(data, [0], TrajectoryStore(tmp_path_factory.mktemp("store")))
    return Subject(
        data=data,
        factory=small_convnet,
        trajectories=[trajectory],
        held_out=[],
        evaluation_networks={},
    )


def features(subject, network):
    choice = LayerChoice(layer=None, before_nonlinearity=False, setting="")
    with feature_extractor(network, subject.data, choice, flat) as extract:
        extract(next(iter(subject.data.test_batches())).images)


def patterns(subject, network):
    Probe(subject, network, subject.data.splits.test)


MEASURED = {
    "accuracy": lambda subject, network: accuracy(network, subject.data.test_batches()),
    "divided accuracy": lambda s, network: divided_accuracy(s, network, s.data.splits.test),
    "logits": divided_logits,
    "canvases": lambda s, network: logits_of_test_images(network, s.data, s.device),
    "features": features,
    "patterns": patterns,
    "images": lambda s, network: scores(network, s.real_images(1)),
}


@pytest.mark.parametrize("name", MEASURED)
def test_a_diverged_network_has_no_accuracy(subject, name):
    network = Diverged(subject.network(0)).eval()
    with pytest.raises(NotFiniteError):
        MEASURED[name](subject, network)


def test_predictions_that_do_not_exist_agree_with_nothing():
    none, classes = torch.tensor([-1, 1]), torch.tensor([0, 1])
    assert math.isnan(matching_fraction(none, classes))
    assert math.isnan(matching_fraction(classes, none))
    assert math.isnan(matching_fraction(none, none))
    assert matching_fraction(classes, classes) == 1


# What ranks classes by logits, and where its logits come from.
RANKED = re.compile(r"\blogits\b[^\n]*\.?(argmax|softmax|topk|log_softmax)\(")
CHECKED = re.compile(r"finite_logits|divided_logits|(?<!def )predicted\(")
# Of `Measures`, whose logits are checked where they are measured, and of networks that are tried.
FROM_ELSEWHERE = {"contributions/scores.py", "importing/ways.py"}


def test_all_that_ranks_classes_checks_the_logits():
    """The highest of NaN is the first class: a network that predicts nothing would predict it."""
    names = ("data", "evaluations", "methods", "study", "training")
    files = {file for name in names for file in (ROOT / "src/cwx" / name).rglob("*.py")}
    ranking = {file for file in files if RANKED.search(file.read_text())}
    unchecked = {file for file in ranking if not CHECKED.search(file.read_text())}
    assert {f"{file.parent.name}/{file.name}" for file in unchecked} == FROM_ELSEWHERE
    assert len(ranking) > 6
