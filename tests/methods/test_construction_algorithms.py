"""What a algorithm makes of images, as laws."""

from dataclasses import replace

import pytest
import torch
from support.builders import image_data, small_mlp
from support.construction_algorithms import ALGORITHMS, ATTACK, EPSILON, MATCHING
from torch import nn

from cwx.functional.label_noise import Uniform
from cwx.functional.rng import stream
from cwx.methods.construction_algorithms import FeatureMatching, TargetedAttack
from cwx.methods.dataset_construction import DatasetConstructor
from cwx.networks.eval_mode import freeze
from cwx.storage.shards import Shards
from cwx.training.build import build_network


@pytest.fixture(scope="module")
def data():
    return image_data()


def module(data, algorithm, folder, *, size=25):
    train = data.splits.train
    return DatasetConstructor(
        network=freeze(build_network(small_mlp, data, seed=1)),
        data=data,
        algorithm=algorithm,
        plan=algorithm.plan(train, data.classes, stream(5)),
        seed=5,
        shards=Shards(folder, count=len(train), size=size),
        stage="dataset_construction",
    )


def made(data, algorithm, folder, **settings):
    each = module(data, algorithm, folder, **settings)
    batches = [each.predict_step(number) for number in range(len(each.shards))]
    return each, {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_images_are_bytes_of_the_same_shape(data, tmp_path, name):
    _, found = made(data, ALGORITHMS[name], tmp_path)
    train = data.splits.train
    assert found["images"].dtype == torch.uint8
    assert found["images"].shape == train.images.shape
    assert (found["labels"].dtype, found["labels"].shape) == (torch.int64, train.labels.shape)


def test_features_are_matched_from_another_image_and_the_label_stays(data, tmp_path):
    each, found = made(data, MATCHING, tmp_path)
    train = data.splits.train
    assert torch.equal(found["labels"], train.labels)
    starts = each.plan.starts
    assert (starts != torch.arange(len(train))).all()
    assert 0 <= starts.min() <= starts.max() < len(train)
    assert len(starts.unique()) > len(train) / 2
    # Where no unit of the small network is active, there is no gradient.
    assert (found["made"] < found["start"]).double().mean() > 0.9
    assert found["made"].mean() < 0.5 * found["start"].mean()
    assert (found["rounded"] - found["made"]).abs().max() < 0.1
    moved = (found["images"].double() - train.images[starts].double()).div(255)
    torch.testing.assert_close(found["moved"].double(), moved.flatten(1).norm(dim=1))
    assert found["moved"].min() > 0


def test_start_images_are_uniform_over_the_other_images(data):
    train = data.splits.train.first(2)
    starts = torch.stack(
        [MATCHING.plan(train, data.classes, stream(seed)).starts for seed in range(1500)]
    )
    for own in range(6):
        fractions = torch.bincount(starts[:, own], minlength=6) / 1500
        assert fractions[own] == 0
        assert (fractions[[i for i in range(6) if i != own]] - 0.2).abs().max() < 0.05


@pytest.mark.parametrize("name", ["random", "next", "from anywhere"])
def test_attacked_images_stay_within_the_ball_up_to_bytes(data, tmp_path, name):
    _, found = made(data, ALGORITHMS[name], tmp_path)
    change = (found["images"].double() - data.splits.train.images.double()).div(255)
    half_a_level = 0.5 / 255 * change[0].numel() ** 0.5
    assert change.flatten(1).norm(dim=1).max() <= EPSILON + half_a_level + 1e-6
    assert set(found["rounded"].unique().tolist()) <= {0.0, 1.0}
    assert found["made"].mean() > found["start"].mean() + 0.2
    assert abs(found["rounded"].mean() - found["made"].mean()) < 0.1


def test_labels_are_those_of_the_targets(data, tmp_path):
    train = data.splits.train
    _, following = made(data, ALGORITHMS["next"], tmp_path)
    assert torch.equal(following["labels"], (train.labels + 1) % 3)
    _, drawn = made(data, ALGORITHMS["random"], tmp_path)
    counts = torch.bincount(drawn["labels"] * 3 + train.labels, minlength=9)
    assert (counts > 0).all()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_batch_depends_on_its_number_alone(data, tmp_path, name):
    each, other = (module(data, ALGORITHMS[name], tmp_path) for _ in range(2))
    first = each.predict_step(1)
    other.predict_step(2)
    again = other.predict_step(1)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(m._forward_pre_hooks for m in each.network.modules())


def test_an_attack_that_is_not_targeted_is_refused():
    with pytest.raises(
        ValueError, match="set dataset_construction.algorithm.attack.targeted to true"
    ):
        TargetedAttack(attack=replace(ATTACK, targeted=False), target=Uniform())


@pytest.mark.parametrize("given", [{"step": -1.0}, {"steps": -1}])
def test_steps_out_of_range_are_refused(given):
    with pytest.raises(
        ValueError, match=r"dataset_construction.algorithm.steps? is -1.*: give 0 or more"
    ):
        FeatureMatching(**{"layer": None, "step": 0.1, "steps": 10, **given})


def test_a_single_image_and_a_network_without_layers_are_refused(data):
    alone = data.splits.train
    alone = type(alone)(alone.images[:1], alone.labels[:1])
    with pytest.raises(
        ValueError, match="number of training images is 1: give 2 or more, or choose"
    ):
        MATCHING.plan(alone, data.classes, stream(0))
    with pytest.raises(ValueError, match="no linear layer"):
        MATCHING.check(nn.Flatten(), (1, 4, 4))
