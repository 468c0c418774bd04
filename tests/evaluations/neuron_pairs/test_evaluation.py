"""Pairs of neurons and their pictures, of a network with known neurons."""

import hashlib
import io
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from support.builders import image_data, train_experts
from torch import nn

from cwx.data.taxonomy import Flat, WordNet
from cwx.evaluations.neuron_pairs.evaluation import NeuronPairs
from cwx.evaluations.neurons import regions
from cwx.evaluations.neurons.evaluation import Neurons
from cwx.functional.top_activations import spatial_maximum
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class Columns(nn.Module):
    """Four neurons: the brightness of a column in the first channel. The fifth is constant."""

    def __init__(self, **shape):
        super().__init__()
        self.first = nn.Conv2d(2, 3, (4, 4), bias=False)
        self.second = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.first.weight.zero_()
            for column in range(3):
                self.first.weight[column, 0, :, column] = 1
            self.second.weight.zero_()
            self.second.weight[0, 2] = 1
        self.head = nn.Linear(2, 3)

    def forward(self, images):
        return self.head(self.second(self.first(images)).flatten(1))


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    data = image_data()
    store = TrajectoryStore(tmp_path_factory.mktemp("store"))
    fixed = {"epochs": 1, "optimizer": partial(torch.optim.SGD, lr=0.0)}
    return Subject(
        data=data,
        factory=Columns,
        trajectories=train_experts(data, [0], store, network=Columns, **fixed),
        held_out=[],
        evaluation_networks={},
    )


SETTINGS = {
    "layers": None, "before_nonlinearity": True, "fraction": 1 / 3, "activation": spatial_maximum,
    "taxonomy": Flat(), "sigma": 1.0,
}  # fmt: skip


def neuron_pairs(**settings):
    chosen = {
        **SETTINGS, "network": "expert", "pairs": 4, "strata": 1, "repeated": 0.5, "occluder": 1,
        "stride": 1, "threshold": 0.5, "seed": 0,
    }  # fmt: skip
    return NeuronPairs(**{**chosen, **settings})


@pytest.fixture(scope="module")
def outcome(subject):
    return neuron_pairs(pairs=6)(subject, {})


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_all_pairs_of_the_neurons_that_fire_are_drawn_with_their_lc(subject, outcome):
    pairs, rows = (outcome.tables[name] for name in ("neuron_pairs", "neuron_pairs_neurons"))
    assert [row["neuron"] for row in rows] == [1, 2, 3, 4]
    # The fifth is constant.
    assert sorted((row["layer"], row["unit"], row["depth"]) for row in rows) == [
        ("first", 0, 1), ("first", 1, 1), ("first", 2, 1), ("second", 0, 2),
    ]  # fmt: skip
    assert len(pairs) == 6 + 3
    firsts = [row for row in pairs if row["repeats"] == ""]
    assert {frozenset((row["left"], row["right"])) for row in firsts} == {
        frozenset(pair) for pair in ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4))
    }
    levels = {row["neuron"]: row["lc"] for row in rows}
    for row in pairs:
        assert (row["left_lc"], row["right_lc"]) == (levels[row["left"]], levels[row["right"]])
    audit = Neurons(**SETTINGS, networks=["expert"], high=0.5, bins=4, noise=False, sheet=None)
    layers = audit(subject, {}).tables["neurons_layers"]
    for layer in layers:
        mean = np.mean([row["lc"] for row in rows if row["layer"] == layer["layer"]])
        assert mean == pytest.approx(layer["lc"])
    for row in rows:
        # A third of the test images are of one class.
        assert (row["lc"], row["largest_fraction"], row["negative_entropy"]) == (1, 1, 0)


def test_lc_is_of_the_top_images_also_if_these_are_fewer_than_those_shown(subject):
    """The top six of 24 images are of one class, but not all of the nine shown."""
    few = neuron_pairs(fraction=1 / 4)(subject, {}).tables["neuron_pairs_neurons"]
    assert {row["lc"] for row in few} == {1}
    most = neuron_pairs(fraction=2 / 3)(subject, {}).tables["neuron_pairs_neurons"]
    assert max(row["lc"] for row in most) < 1
    for row in most:
        assert 0.5 <= row["largest_fraction"] < 1
        assert -1.1 < row["negative_entropy"] < 0


def test_a_picture_has_the_nine_images_of_highest_activation_with_the_region(subject, outcome):
    rows = outcome.tables["neuron_pairs_neurons"]
    assert set(outcome.files) == {f"neuron_pairs/{row['neuron']:05d}.png" for row in rows}
    test = subject.data.splits.test
    for row in rows:
        column = row["unit"] if row["layer"] == "first" else 2
        picture = pixels(outcome.files[f"neuron_pairs/{row['neuron']:05d}.png"])
        assert picture.shape == (3 * 96 + 2 * 6,) * 2 + (3,)
        assert hashlib.sha256(picture.tobytes()).hexdigest() == row["picture_sha256"]
        activations = test.images[:, 0, :, column].float().sum(1)
        order = activations.argsort(descending=True, stable=True)[:9]
        for position, index in enumerate(order.tolist()):
            top, left = 102 * (position // 3), 102 * (position % 3)
            tile = picture[top : top + 96, left : left + 96].astype(int)
            # The middles of the pixels outside of the column, which have no outline.
            shown = tile[12::24, 12::24, 0]
            others = [other for other in range(4) if abs(other - column) > 1]
            assert (shown[:, others] == test.images[index, 0].numpy()[:, others]).all()
            yellow = (tile[..., 2] - tile[..., 0] < -200).nonzero()[1]
            assert len(yellow) > 20
            assert yellow.min() > 24 * (column - 1)
            assert yellow.max() < 24 * (column + 2)


def test_each_image_is_occluded_once(subject, monkeypatch):
    seen = []
    original = regions.discrepancy

    def discrepancy(activations, image, *others, **settings):
        seen.append(image)
        return original(activations, image, *others, **settings)

    monkeypatch.setattr(regions, "discrepancy", discrepancy)
    neuron_pairs(pairs=6)(subject, {})
    assert 9 < len(seen) <= 24
    assert len({image.numpy().tobytes() for image in seen}) == len(seen)


def test_the_seed_draws_pairs_and_numbers(subject, outcome):
    again = neuron_pairs(pairs=6)(subject, {})
    assert (again.tables, again.files) == (outcome.tables, outcome.files)
    others = [neuron_pairs(pairs=6, seed=seed)(subject, {}) for seed in range(1, 5)]
    units = [
        [(row["layer"], row["unit"]) for row in other.tables["neuron_pairs_neurons"]]
        for other in others
    ]
    assert len({tuple(order) for order in units}) > 1


def test_fewer_neurons_or_pairs_than_needed_are_refused(subject):
    with pytest.raises(
        ValueError, match="evaluation.neuron_pairs.pairs: 7 pairs, and 4 neurons have 6 pairs"
    ):
        neuron_pairs(pairs=7)(subject, {})
    with pytest.raises(ValueError, match=r"needs two neurons .* 1 of 2 neurons of expert do"):
        neuron_pairs(layers=["second"])(subject, {})
    with pytest.raises(ValueError, match="no network called 'held-out'"):
        neuron_pairs(network="held-out")(subject, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fraction": 0}, "evaluation.neuron_pairs.fraction is 0: give a fraction between 0 and 1"),
        ({"fraction": 1}, "evaluation.neuron_pairs.fraction is 1"),
        ({"pairs": 0}, "evaluation.neuron_pairs.pairs is 0: give 1 or more"),
        ({"strata": 0}, "evaluation.neuron_pairs.strata is 0"),
        ({"strata": 5}, "evaluation.neuron_pairs.strata is 5, more than the 4 pairs"),
        ({"repeated": 1.1}, "evaluation.neuron_pairs.repeated is 1.1: give a fraction from 0 to 1"),
        ({"threshold": 0}, "evaluation.neuron_pairs.threshold is 0: give a fraction above 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        neuron_pairs(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": ["conf"]}, "evaluation.neuron_pairs.layers: Columns has no layer 'conf'"),
        ({"layers": []}, "evaluation.neuron_pairs.layers is empty"),
        ({"taxonomy": WordNet()}, "evaluation.neuron_pairs.taxonomy is WordNet, but .*=flat"),
        ({"sigma": 1e9}, "evaluation.neuron_pairs.sigma: a sigma of .* indefinite"),
        ({"network": "exprt"}, "network is 'exprt', and this study has no .* one of expert, mlp"),
        ({"occluder": 5}, "occluder and evaluation.neuron_pairs.stride: an occluder of 5x5"),
        ({"stride": 2}, "stride: .* leave pixels uncovered"),
    ],
)
def test_check_refuses_bad_settings(subject, settings, message):
    plan = Plan(
        data=subject.data,
        methods=[],
        held_out=0,
        networks={"network": Columns},
        kinds=["expert", "mlp"],
    )
    neuron_pairs().check(plan)
    with pytest.raises(ValueError, match=message):
        neuron_pairs(**settings).check(plan)


@pytest.mark.parametrize("count", [1, 9])
def test_a_study_without_enough_test_images_is_refused(count):
    data = image_data()
    data._splits = replace(data.splits, test=data.splits.test.at(torch.arange(count)))
    plan = Plan(data=data, methods=[], held_out=0, networks={"network": Columns})
    with pytest.raises(ValueError, match=f"shows 9 test images .* there are {count}: give more"):
        neuron_pairs().check(plan)
