"""AdversarialSet images are made once for all studies of the same networks, and by whom."""

import json
import logging
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support import builders, references
from support.builders import BlobsWithoutTraining, image_data
from torch import nn

from cwx.data.splits import ImageSet
from cwx.data.step_loaders import RoundRobinIndices
from cwx.evaluations.adversarial.adversarial_set import AdversarialSetAccuracy
from cwx.functional.ensemble_attack import EnsembleAttack
from cwx.methods.ensemble_attack import EnsembleAttacker
from cwx.storage.shards import Shards
from cwx.study.steps.adversary import Ensemble, NoAdversary
from cwx.training.plan import Plan

ATTACK = EnsembleAttack(weight=0.001, scale=255, step=20, steps=8, epsilon=None)
PRECISION = {"experts": {}, "methods": {"trainer": "32-true"}}
MLP = {"_target_": "MLP", "width": 6}


def training(store, precision=PRECISION, **evaluation_networks):
    """Cannot train; evaluation networks are of the explained kind by default."""
    configuration = {
        "network": MLP, "evaluation_networks": evaluation_networks, "precision": precision
    }  # fmt: skip
    return builders.training(store, configuration)


def ensemble(**changes):
    chosen = {
        "members": None,
        "adaptive": False,
        "targets": 2,
        "images": None,
        "weight": 0.001,
        "scale": 255,
        "step": 20,
        "steps": 8,
        "epsilon": None,
        "batch_size": 10,
    }
    return Ensemble(**chosen | changes)


@pytest.fixture
def study(subject):
    """The first expert and a evaluation network that is the held-out one."""
    evaluation_network = subject.held_out[0]
    return evaluation_trajectories(replace(subject, held_out=[]), other=evaluation_network)


def evaluation_trajectories(subject, **trajectories):
    evaluation_networks = {name: [subject.trained_network(t)] for name, t in trajectories.items()}
    return replace(
        subject,
        evaluation_networks=evaluation_networks,
        evaluation_trajectories={name: [t] for name, t in trajectories.items()},
    )


def sets(store):
    return {path.parent for path in store.glob("*/shard-00000.safetensors")}


def made(study, store, **changes):
    return ensemble(**changes)(study, training(store, other=MLP))


def test_each_test_image_is_perturbed_towards_its_least_likely_classes(study, tmp_path):
    found, test = made(study, tmp_path), study.data.splits.test
    assert len(found) == 2 * len(test)
    assert found.originals.tolist() == [i for i in range(len(test)) for _ in range(2)]
    assert torch.equal(found.labels, test.labels[found.originals])
    networks = [study.first_network(name) for name in found.members]
    assert sorted(found.members) == ["expert", "other"]
    clean = study.data.normalization.from_bytes(test.images)
    probabilities = sum(network(clean).softmax(1) for network in networks) / 2
    expected = [
        references.least_likely(row, label, 2)
        for row, label in zip(probabilities.tolist(), test.labels.tolist(), strict=True)
    ]
    assert found.targets.view(-1, 2).tolist() == expected


def test_the_images_equal_the_attack_and_metrics_use_bytes(study, tmp_path):
    found, test = made(study, tmp_path), study.data.splits.test
    normalization = study.data.normalization
    networks = [study.first_network(name) for name in found.members]
    clean = normalization.from_bytes(test.images)[found.originals]
    whole = ATTACK(networks, clean, found.targets, normalization=normalization)
    images = found.shards.tensor("images")
    # What one batch sums, another may sum in another order.
    assert (images.int() - normalization.to_bytes(whole).int()).abs().max() <= 1
    kept = found.shards.tensor("distance_rounded")
    apart = images.double() - test.images[found.originals].double()
    torch.testing.assert_close(kept.double(), apart.flatten(1).norm(dim=1), rtol=1e-5, atol=1e-3)
    before = found.shards.tensor("distance")
    # Rounding takes half a grey level off each of 32 values, or adds it.
    assert 0 < (kept - before).abs().max() < 0.5 * 32**0.5
    assert found.metrics["adversary/distance"] == pytest.approx(kept.mean().item())
    for place, (name, network) in enumerate(zip(found.members, networks, strict=True)):
        said = network(normalization.from_bytes(images)).argmax(1)
        right = network(clean).argmax(1) == found.labels
        for kind, expected in (
            ("reached", said == found.targets),
            ("kept", said == found.labels),
            ("right", right),
        ):
            assert torch.equal(found.shards.tensor(kind)[:, place], expected)
        success = (said == found.targets).double().mean().item()
        assert found.metrics[f"adversary/success/{name}"] == pytest.approx(success)
        assert found.metrics[f"adversary/accuracy/{name}"] == right.double().mean().item()
        assert success > 0.3


def test_a_set_is_made_once_and_read_again(study, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "cwx"):
        first = made(study, tmp_path)
    assert "making adversarial images: 5 of 5 batches are not in the store" in caplog.messages
    assert f"48 adversarial images in {first.shards.folder}" in caplog.messages[-1]
    caplog.clear()
    with caplog.at_level(logging.INFO, "cwx"):
        again = made(study, tmp_path)
    assert not [message for message in caplog.messages if "not in the store" in message]
    assert again.metrics == first.metrics
    assert len(sets(tmp_path)) == 1


def test_only_what_is_missing_is_made_again(study, tmp_path):
    folder = made(study, tmp_path).shards.folder
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.glob("shard-*")}
    lost = folder / "shard-00003.safetensors"
    lost.unlink()
    (folder / "complete.json").unlink()
    made(study, tmp_path)
    for file, (contents, stamp) in before.items():
        assert file.read_bytes() == contents
        assert (file.stat().st_mtime_ns == stamp) == (file != lost)
    assert (folder / "complete.json").exists()


def test_several_ranks_make_the_same_set_as_one(study, tmp_path):
    whole = made(study, tmp_path / "whole")
    places = torch.arange(24)
    shards = Shards(tmp_path / "shared", count=48, size=10)
    for rank in (1, 0):
        module = EnsembleAttacker(
            networks=[study.first_network(name) for name in whole.members],
            data=study.data,
            indices=places,
            targets=2,
            attack=ATTACK,
            shards=shards,
            stage="ranks",
        )
        turns = RoundRobinIndices(shards.missing() if rank else range(5))
        turns.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        for number in turns.predict_dataloader():
            assert number % 2 == rank
            shards.write(number, module.predict_step(number))
    assert shards.missing() == []
    for name, tensor in whole.shards.read().items():
        assert torch.equal(shards.tensor(name), tensor)


def test_the_same_networks_with_other_names_share_a_set(study, subject, tmp_path):
    first = made(study, tmp_path)
    (evaluation_network, *_), expert = study.evaluation_trajectories["other"], study.trajectories[0]
    swapped = evaluation_trajectories(
        replace(study, trajectories=[evaluation_network]), zero=expert
    )
    again = ensemble(members=["zero", "expert"])(swapped, training(tmp_path, zero=MLP))
    assert again.shards.folder == first.shards.folder
    names = {"expert": "zero", "other": "expert"}
    assert [names[name] for name in first.members] == list(again.members)
    for name, other in names.items():
        for kind in ("success", "accuracy"):
            number = first.metrics[f"adversary/{kind}/{name}"]
            assert again.metrics[f"adversary/{kind}/{other}"] == number
    # Held-out experts, too, have a name.
    held = replace(subject, trajectories=[expert], held_out=[evaluation_network])
    third = ensemble(members=["held-out", "expert"])(held, training(tmp_path))
    assert third.shards.folder == first.shards.folder
    assert len(sets(tmp_path)) == 1


def test_the_identity_depends_on_test_images_only(study, tmp_path):
    made(study, tmp_path)
    train, test = study.data.splits.train, study.data.splits.test
    data = image_data()
    data.train_on(ImageSet(255 - train.images, train.labels))
    made(replace(study, data=data), tmp_path)
    assert len(sets(tmp_path)) == 1
    data._splits = replace(data.splits, test=test.at(torch.arange(1, 24)))
    made(replace(study, data=data), tmp_path)
    assert len(sets(tmp_path)) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"members": ["expert"]},
        {"targets": 1},
        {"images": 23},
        {"weight": 0.02},
        {"scale": 256},
        {"step": 4},
        {"steps": 7},
        {"epsilon": 8},
        {"batch_size": 4},
        "epoch",
        "kind",
        "precision",
    ],
    ids=str,
)
def test_a_change_of_the_identity_makes_another_set(study, tmp_path, change):
    made(study, tmp_path, steps=8)
    if isinstance(change, dict):
        made(study, tmp_path, **change)
    elif change == "epoch":
        made(replace(study, epoch=3), tmp_path)
    elif change == "kind":
        ensemble()(study, training(tmp_path, other={"_target_": "Other"}))
    else:
        precision = {**PRECISION, "methods": {"trainer": "bf16-mixed"}}
        ensemble()(study, training(tmp_path, precision, other=MLP))
    assert len(sets(tmp_path)) == 2


def test_a_set_without_a_bound_has_the_identity_of_older_sets(study, tmp_path):
    identity = json.loads((made(study, tmp_path).shards.folder / "identity.json").read_text())
    assert identity["adversarial"] == {
        "targets": 2, "batch_size": 10, "weight": 0.001, "scale": 255, "step": 20, "steps": 8
    }  # fmt: skip


def test_a_bounded_set_keeps_its_bound_in_bytes(study, tmp_path):
    found, test = made(study, tmp_path, epsilon=6), study.data.splits.test
    change = found.shards.tensor("images").int() - test.images[found.originals].int()
    assert change.abs().max() == 6
    free = made(study, tmp_path)
    assert free.metrics["adversary/distance"] > found.metrics["adversary/distance"]


def test_an_adaptive_set_attacks_the_last_state_of_the_fine_tuned_network(study, subject, tmp_path):
    tuned = subject.held_out[0]
    study = replace(study, fine_tuned=[tuned], epoch=3)
    found = made(study, tmp_path, members=["fine-tuned"])
    identity = json.loads((found.shards.folder / "identity.json").read_text())
    assert [member["trained"] for member in identity["members"]] == [tuned.identity]
    assert [member["epoch"] for member in identity["members"]] == [tuned.epochs]
    assert found.members == ["fine-tuned"]
    # The evaluation network is the same network.
    assert found.attacked == ["fine-tuned", "other"]
    network = study.trained_network(tuned, tuned.epochs)
    said = network(study.data.normalization.from_bytes(found.shards.tensor("images"))).argmax(1)
    success = (said == found.targets).double().mean().item()
    assert found.metrics["adversary/success/fine-tuned"] == pytest.approx(success)
    # Beside the evaluation networks, in the place of the expert, whatever its names.
    expert, other = study.trajectories[0], study.evaluation_trajectories["other"][0]
    fine_tuned = subject.trajectories[1]
    twice = evaluation_trajectories(study, other=other, same=expert)
    twice = replace(twice, fine_tuned=[fine_tuned], epoch=None)
    beside = ensemble(adaptive=True)(twice, training(tmp_path, other=MLP, same=MLP))
    assert sorted(beside.members) == ["fine-tuned", "other"]
    assert sorted(beside.attacked) == ["fine-tuned", "other"]
    named = made(replace(study, fine_tuned=[fine_tuned]), tmp_path, members=beside.members)
    assert named.shards.folder == beside.shards.folder
    # Another fine-tuning makes another set.
    made(replace(study, fine_tuned=study.trajectories), tmp_path, members=["fine-tuned"])
    assert len(sets(tmp_path)) == 3


def test_all_images_and_more_than_all_images_share_a_set(study, tmp_path):
    for images in (None, 24, 25):
        made(study, tmp_path, images=images)
    assert len(sets(tmp_path)) == 1


def test_some_images_are_spread_evenly(study, tmp_path):
    found = made(study, tmp_path, images=4, targets=1)
    assert found.originals.tolist() == [0, 6, 12, 18]
    assert found.shards.size == 10


@pytest.mark.parametrize(("batch_size", "size"), [(1, 2), (2, 2), (3, 2), (5, 4)])
def test_all_targets_of_an_image_are_in_one_batch(batch_size, size):
    assert ensemble(batch_size=batch_size).batch_size == size


def test_the_networks_are_not_changed(study, tmp_path):
    evaluation_network = study.evaluation_networks["other"][0]
    before = {name: tensor.clone() for name, tensor in evaluation_network.state_dict().items()}
    made(study, tmp_path)
    assert study.evaluation_networks["other"][0] is evaluation_network
    assert all(
        torch.equal(tensor, before[name])
        for name, tensor in evaluation_network.state_dict().items()
    )
    assert not evaluation_network.training


class Turned(nn.Module):
    """Knows the classes in another order."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images).roll(1, 1)


class Wider(Turned):
    """Has one more class."""

    def forward(self, images):
        logits = self.network(images)
        return torch.cat([logits, logits[:, :1] - 9], 1)


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (
            Turned,
            "the test accuracy of other in adversary.members is 0, at chance for 3 classes: check "
            "the pixel range (data.mean, data.std) and the order of classes (data.source.classes) "
            "that it was trained with, or remove it from adversary.members",
        ),
        (Wider, "for the same images: choose adversary.members with the same classes"),
    ],
)
def test_a_member_that_does_not_fit_is_refused(study, tmp_path, spoilt, message):
    wrong = replace(
        study, evaluation_networks={"other": [spoilt(study.evaluation_networks["other"][0])]}
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        made(wrong, tmp_path)
    assert not sets(tmp_path)


def test_an_evaluation_network_that_is_the_expert_is_attacked_once(study, tmp_path):
    """The same ensemble, whichever of its members the study explains."""
    expert, other = study.trajectories[0], study.evaluation_trajectories["other"][0]
    both = evaluation_trajectories(study, other=other, same=expert)
    found = ensemble()(both, training(tmp_path, other=MLP, same=MLP))
    assert sorted(found.members) == ["expert", "other"]
    # All names of an attacked network say so.
    assert sorted(found.attacked) == ["expert", "other", "same"]
    rows = AdversarialSetAccuracy(shown=1, amplify=1)(replace(both, adversarial=found), {}).tables[
        "adversarial_set_networks"
    ]
    marks = {(row["network"], row["replicate"]): row["attacked"] for row in rows}
    assert marks == {
        ("expert", 0): "yes", ("expert", 1): "no", ("other", 0): "yes", ("same", 0): "yes",
    }  # fmt: skip
    explained = replace(study, trajectories=[other])
    explained = evaluation_trajectories(explained, other=other, first=expert)
    again = ensemble()(explained, training(tmp_path, other=MLP, first=MLP))
    assert sorted(again.members) == ["expert", "first"]
    assert len(sets(tmp_path)) == 1


def test_a_network_that_is_named_twice_is_refused(study, tmp_path):
    both = evaluation_trajectories(study, same=study.trajectories[0])
    message = "adversary.members has 'expert' and 'same', which are the same trained network"
    with pytest.raises(ValueError, match=message):
        ensemble(members=["expert", "same"])(both, training(tmp_path, same=MLP))
    assert not sets(tmp_path)


def test_a_network_that_fine_tuning_has_spoilt_is_refused_with_another_remedy(study, tmp_path):
    data = image_data()
    data.normalization = replace(data.normalization, mean=(-9.0, 9.0))
    spoilt = replace(study, data=data, fine_tuned=study.trajectories)
    message = "at chance for 3 classes: fine-tune it more gently, with a lower fine_tuning.recipe"
    with pytest.raises(ValueError, match=message):
        made(spoilt, tmp_path, members=["fine-tuned"])


def test_pixels_of_another_range_are_refused(study, tmp_path):
    data = image_data()
    data.normalization = replace(data.normalization, mean=(-9.0, 9.0))
    with pytest.raises(ValueError, match="at chance for 3 classes: check the pixel range"):
        made(replace(study, data=data), tmp_path)


def plan(**changes):
    chosen = {"data": image_data(), "methods": [], "held_out": 0, "names": ["expert", "other"]}
    return Plan(**chosen | changes)


def without_test_images():
    data = image_data()
    data._splits = replace(data.splits, test=data.splits.test.empty())
    return data


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (
            {"members": ["expert", "vgg"]},
            {},
            "adversary.members has 'vgg', but this study has no such network: give some of "
            "expert, other, or null for the expert and all evaluation networks",
        ),
        (
            {"members": ["fine-tuned"]},
            {"kinds": ["expert", "other"]},
            "adversary.members has 'fine-tuned', but this study does not fine-tune: choose "
            "fine_tuning=consistency, or adversary=ensemble, which attacks the networks before",
        ),
        (
            {"adaptive": True},
            {"kinds": ["expert", "other"]},
            "adversary.adaptive is true, but this study does not fine-tune: choose fine_tuning=",
        ),
        (
            {"targets": 3},
            {},
            "adversary.targets is 3, but with 3 classes an image has 2 possible targets",
        ),
        (
            {},
            {"data": without_test_images()},
            "attacks test images, but the data have none",
        ),
    ],
)
def test_an_impossible_attack_is_refused_before_training(settings, changes, message):
    ensemble().check(plan())
    ensemble(adaptive=True).check(plan(kinds=["expert", "other", "fine-tuned"]))
    ensemble(members=["fine-tuned"]).check(plan(kinds=["expert", "other", "fine-tuned"]))
    ensemble(members=["other"]).check(plan(data=image_data(BlobsWithoutTraining())))
    with pytest.raises(ValueError, match=re.escape(message)):
        ensemble(**settings).check(plan(**changes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": []}, "adversary.members is []: give one or more, each once, or null for"),
        ({"members": ["expert", "expert"]}, "adversary.members is ['expert', 'expert']: give one"),
        ({"targets": 0}, "adversary.targets is 0: give 1 or more"),
        ({"batch_size": 0}, "adversary.batch_size is 0: give 1 or more"),
        ({"images": 0}, "adversary.images is 0: give 1 or more, or null for all"),
        (
            {"adaptive": True, "members": ["expert"]},
            "adversary.adaptive is true, and adversary.members is ['expert']: give adversary.mem",
        ),
        ({"epsilon": 0.03}, "adversary.epsilon is 0.03 on a scale of 0 to 255, less than one grey"),
        ({"epsilon": 300}, "adversary.epsilon is 300 on a scale of 0 to 255, where pixels are at"),
        ({"scale": 1}, "adversary.step is 20 on a scale of 0 to 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ensemble(**settings)


def test_no_adversary_returns_none(study):
    assert NoAdversary()(study, training("unused")) is None
