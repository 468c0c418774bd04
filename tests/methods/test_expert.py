"""What may differ in how experts are trained, and what may not in what they learn."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from support.builders import (
    expert_requests,
    experts,
    image_data,
    sgd,
    small_mlp,
    stages,
    train_experts,
)
from support.references import flat
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cwx.evaluations.accuracy import Accuracy
from cwx.functional.attacks import Attack, Linf
from cwx.functional.augmentation import Crop, Strategy
from cwx.functional.rng import stream
from cwx.methods.consistency import ConsistencyObjective
from cwx.networks.convnet import ConvNet, instance_norm
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.build import build_network
from cwx.training.precision import Precision, Precisions
from cwx.training.subject import Subject


def batch_normed(**shape):
    """A network with running statistics, which belong to its trajectory too."""
    return ConvNet(**shape, depth=1, width=4, norm=nn.BatchNorm2d)


def states(trajectories):
    return [
        trajectory.state(epoch)
        for trajectory in trajectories
        for epoch in trajectory.recorded_epochs
    ]


def assert_equal(found, expected):
    for a, b in zip(states(found), states(expected), strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def with_dropout(in_channels, image_size, num_classes):
    features = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(features, num_classes))


@pytest.mark.parametrize(
    ("network", "augment"),
    [
        (batch_normed, Strategy({})),
        (batch_normed, Strategy({"crop": Crop(shift=0.3)})),
        (with_dropout, Strategy({})),
    ],
)
def test_side_by_side_each_learns_what_it_learns_alone(data, tmp_path, network, augment):
    settings = {"network": network, "augment": augment, "epochs": 2}
    alone, together, pairs = (
        train_experts(data, [3, 4, 5], TrajectoryStore(tmp_path / str(n)), at_once=n, **settings)
        for n in (1, 3, 2)
    )
    assert_equal(together, alone)
    assert_equal(pairs, alone)


def test_only_what_is_missing_is_trained(data, tmp_path):
    store = TrajectoryStore(tmp_path)
    train_experts(data, [4], store, at_once=1)
    asked = []

    def build(missing):
        asked.extend(expert.seed for expert in missing)
        return experts(data, [expert.seed for expert in missing])

    found = stages().train(build, expert_requests(3, 4, 5), store, at_once=3)
    assert asked == [3, 5]
    assert [trajectory.identity["seed"] for trajectory in found] == [3, 4, 5]
    assert not list(tmp_path.glob("*/*.ckpt"))


def test_what_is_wanted_twice_is_trained_once(data, tmp_path):
    store = TrajectoryStore(tmp_path)
    first, again, other = train_experts(data, [4, 4, 5], store, at_once=3)
    assert first.path == again.path != other.path
    assert_equal([other], train_experts(data, [5], TrajectoryStore(tmp_path / "alone")))


class Power(Exception):
    pass


def cut(data, seeds, store, **settings):
    """A training of these seeds whose power fails in the third epoch."""

    def build(missing):
        module = experts(data, [expert.seed for expert in missing], **settings)
        step = module.training_step

        def training_step(batches, batch_idx):
            if module.global_step == 19:
                raise Power
            return step(batches, batch_idx)

        module.training_step = training_step
        return module

    with pytest.raises(Power):
        stages().train(build, expert_requests(*seeds), store, at_once=len(seeds))
    assert store.find({"seed": seeds[0]}) is None


def impatient(optimizer):
    """A tenth of the rate after every epoch whose loss is not a fifth of the best."""
    return ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=0.8)


TARGETED = Attack(
    ball=Linf(), epsilon=255, scale=255, step=10, steps=5, random_start=False, targeted=True
)
# How a consistent network is trained; the loss of such small ones is mostly that of features.
CONSISTENT = {
    "network": lambda **shape: ConvNet(**shape, depth=1, width=6, norm=instance_norm),
    "attack": TARGETED,
    "objective": partial(ConsistencyObjective, alpha=0.5, beta=0.1, layer=None),
}
WAYS = {
    "ordinary": {},
    "plateau": {"schedule": impatient},
    "consistent": CONSISTENT | {"schedule": impatient},
}


@pytest.mark.parametrize("way", WAYS)
def test_experts_cut_together_continue_together(data, tmp_path, way):
    whole = train_experts(data, [3, 4], TrajectoryStore(tmp_path / "whole"), at_once=2, **WAYS[way])
    store = TrajectoryStore(tmp_path / "cut")
    cut(data, [3, 4], store, **WAYS[way])
    assert_equal(train_experts(data, [3, 4], store, at_once=2, **WAYS[way]), whole)


def test_a_group_in_another_order_does_not_take_the_checkpoint(data, tmp_path):
    """Its networks and optimiser states are in the order of the group."""
    settings = {"at_once": 3, "optimizer": sgd(0.1, 0.9)}
    store, whole = TrajectoryStore(tmp_path / "cut"), TrajectoryStore(tmp_path / "whole")
    cut(data, [3, 4, 5], store, optimizer=settings["optimizer"])
    ordered = train_experts(data, [3, 5, 4], store, **settings)
    assert_equal(ordered, train_experts(data, [3, 5, 4], whole, **settings))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_checkpoint_of_an_earlier_version_is_continued(data, tmp_path):
    """It has no sums of an unfinished epoch."""
    store = TrajectoryStore(tmp_path)
    cut(data, [3], store)
    (file,) = tmp_path.rglob("*.ckpt")
    checkpoint = torch.load(file, weights_only=False)
    del checkpoint["epoch_sums"]
    torch.save(checkpoint, file)
    whole = train_experts(data, [3], TrajectoryStore(tmp_path / "whole"))
    assert_equal(train_experts(data, [3], store), whole)


def test_channels_last_learns_the_same_up_to_rounding(data, tmp_path):
    usual, other = (
        train_experts(
            data,
            [3],
            TrajectoryStore(tmp_path / str(last)),
            network=batch_normed,
            epochs=1,
            channels_last=last,
        )
        for last in (False, True)
    )
    for a, b in zip(states(usual), states(other), strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_augmentation_changes_what_is_learned_but_not_the_start(data, tmp_path):
    plain, moved = (
        states(
            train_experts(data, [3], TrajectoryStore(tmp_path / str(i)), augment=augment, epochs=1)
        )
        for i, augment in enumerate((Strategy({}), Strategy({"crop": Crop(shift=0.5)})))
    )
    name = next(iter(plain[0]))
    assert torch.equal(plain[0][name], moved[0][name])
    assert not torch.equal(plain[1][name], moved[1][name])


def test_a_loss_that_is_not_finite_names_its_expert(tmp_path):
    data = image_data()
    with pytest.raises(ValueError, match=r"loss of expert-3 .* lower recipe.optimizer.lr"):
        train_experts(
            data,
            [3],
            TrajectoryStore(tmp_path),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30),
        )
    assert not list(tmp_path.glob("*/complete.json"))
    assert not list(tmp_path.glob("*/*.ckpt"))


def test_autocast_computes_in_half_precision_and_keeps_single_weights(data, tmp_path):
    seen = []

    class Spy(nn.Linear):
        def forward(self, inputs):
            result = super().forward(inputs)
            seen.append((result.dtype, torch.is_grad_enabled()))
            return result

    def network(in_channels, image_size, num_classes):
        return nn.Sequential(nn.Flatten(), Spy(in_channels * 16, num_classes))

    bf16 = Precision(trainer="bf16-mixed", float32_matmul="highest")
    plain = Precision(trainer="32-true", float32_matmul="highest")
    each = stages(precisions=Precisions(experts=bf16, methods=plain))
    (found,) = each.train(
        lambda _: experts(data, [3], network=network, epochs=1),
        expert_requests(3),
        TrajectoryStore(tmp_path),
        at_once=1,
    )
    assert {dtype for dtype, training in seen if training} == {torch.bfloat16}
    assert {dtype for dtype, training in seen if not training} == {torch.float32}
    assert all(tensor.dtype == torch.float32 for tensor in found.state(1).values())


PGD = Attack(
    ball=Linf(), epsilon=60, scale=255, step=15, steps=7, random_start=True, targeted=False
)


def test_adversarial_training_withstands_what_ordinary_training_does_not(data, tmp_path):
    found = {}
    for name, attack in (("ordinary", None), ("adversarial", PGD)):
        store = TrajectoryStore(tmp_path / name)
        trajectories = train_experts(data, [3, 4], store, at_once=2, attack=attack, epochs=20)
        subject = Subject(
            data=data,
            factory=small_mlp,
            trajectories=trajectories[:1],
            held_out=trajectories[1:],
            evaluation_networks={},
        )
        found[name] = Accuracy(
            attacks={"pgd": PGD}, images=None, evaluation_networks=False, top=[1]
        )(subject, {}).metrics
    for network in ("expert", "held-out"):
        clean, attacked = f"accuracy/{network}/clean", f"accuracy/{network}/pgd"
        assert found["ordinary"][clean] == found["adversarial"][clean] == 1
        assert found["adversarial"][attacked] > found["ordinary"][attacked] + 0.3


@pytest.mark.parametrize(
    "settings",
    [{"network": batch_normed, "attack": PGD}, CONSISTENT | {"network": batch_normed}],
    ids=["adversarial", "consistent"],
)
def test_side_by_side_each_is_attacked_by_itself(data, tmp_path, settings):
    settings = {**settings, "epochs": 2}
    alone, together = (
        train_experts(data, [3, 4], TrajectoryStore(tmp_path / str(n)), at_once=n, **settings)
        for n in (1, 2)
    )
    assert_equal(together, alone)


def test_what_is_learned_from_is_the_augmented_batch_attacked_in_eval_mode(data, tmp_path):
    seen = []

    class Spy(nn.Module):
        def __init__(self, in_channels, image_size, num_classes):
            super().__init__()
            self.norm = nn.BatchNorm1d(in_channels * 16)
            self.head = nn.Linear(in_channels * 16, num_classes)

        def forward(self, images):
            if torch.is_grad_enabled():
                seen.append((self.training, images.detach().clone()))
            return self.head(self.norm(images.flatten(1)))

    epochs, steps = 2, 8
    (found,) = train_experts(
        data, [3], TrajectoryStore(tmp_path), network=Spy, attack=PGD, epochs=epochs,
        augment=Strategy({"crop": Crop(shift=0.5)}),
    )  # fmt: skip
    assert [training for training, _ in seen] == ([False] * PGD.steps + [True]) * epochs * steps
    # Running statistics know of training alone.
    assert found.state(epochs)["norm.num_batches_tracked"] == epochs * steps
    batches = data.batches(size=8, seeds=[3]).train_dataloader()
    unit = data.normalization.denormalize
    for step, ((batch,), (_, learned)) in enumerate(
        zip(batches, seen[PGD.steps :: PGD.steps + 1], strict=False)
    ):
        augment = Strategy({"crop": Crop(shift=0.5)}).draw(batch.total, stream(3, step, 1))
        change = unit(learned) - unit(augment(batch.images))
        assert change.abs().max() <= PGD.epsilon / PGD.scale + 1e-6
        assert change.abs().mean() > 0.3 * PGD.epsilon / PGD.scale
        assert unit(learned).min() >= -1e-6
        assert unit(learned).max() <= 1 + 1e-6


def way_of(data, folder, trainer_precision, **settings):
    """How far from each other two epochs in this precision and in single end, over the way."""
    ends = []
    plain = Precision(trainer="32-true", float32_matmul="highest")
    for precision in (replace(plain, trainer=trainer_precision), plain):
        (found,) = stages(precisions=Precisions(experts=precision, methods=plain)).train(
            lambda _: experts(data, [3], epochs=2, **settings),
            expert_requests(3),
            TrajectoryStore(folder / precision.trainer),
            at_once=1,
        )
        start, end = (flat(found.state(epoch).values()) for epoch in (0, 2))
        ends.append(end - start)
    return (ends[0] - ends[1]).norm() / ends[1].norm()


def test_an_attack_in_half_precision_leaves_training_its_gradients(data, tmp_path):
    assert way_of(data, tmp_path, "bf16-mixed", attack=PGD) < 0.3


def test_a_schedule_changes_the_rate_after_each_epoch(data, tmp_path):
    def halving(optimizer):
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    settings = {"at_once": 1, "epochs": 3}
    plain, scheduled = (
        train_experts(data, [3], TrajectoryStore(tmp_path / str(n)), schedule=schedule, **settings)[
            0
        ]
        for n, schedule in enumerate((None, halving))
    )
    # The first epoch is at the same rate, the second no longer.
    for epoch, same in ((1, True), (2, False)):
        first, second = (flat(t.state(epoch).values()) for t in (plain, scheduled))
        assert torch.equal(first, second) == same
    last = [flat(scheduled.state(epoch).values()) for epoch in range(4)]
    steady = [flat(plain.state(epoch).values()) for epoch in range(4)]
    assert last[3].dist(last[2]) < 0.5 * steady[3].dist(steady[2])


def test_a_schedule_that_waits_for_a_plateau_is_told_the_mean_loss_of_the_epoch(data, tmp_path):
    told = []

    class Told(ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            told.append(metrics)

    # At a rate of 0, the loss of all images is that of the initial weights.
    (still,) = train_experts(
        data, [3], TrajectoryStore(tmp_path), optimizer=sgd(0.0), schedule=Told, epochs=2
    )
    network = build_network(small_mlp, data, seed=3)
    still.load_into(network, 0)
    train = data.splits.train
    logits = network(data.normalization.from_bytes(train.images))
    assert told == [pytest.approx(F.cross_entropy(logits, train.labels).item())] * 2


def test_networks_side_by_side_reach_plateaus_of_their_own(data, tmp_path):
    rates = []

    class Noted(ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            super().step(metrics)
            rates.append(self.get_last_lr())

    def schedule(optimizer):
        return Noted(optimizer, factor=0.1, patience=0, threshold=0.31)

    found = {}
    for at_once in (1, 3):
        rates.clear()
        store = TrajectoryStore(tmp_path / str(at_once))
        states = train_experts(data, [3, 4, 5], store, at_once=at_once, schedule=schedule)
        found[at_once] = states, list(rates)
    assert_equal(found[3][0], found[1][0])
    # One group each, and not all fall in the same epochs.
    alone, together = ([rate for (rate,) in found[n][1]] for n in (1, 3))
    each = [alone[first : first + 4] for first in (0, 4, 8)]
    assert [list(epoch) for epoch in zip(*each, strict=True)] == [
        together[first : first + 3] for first in (0, 3, 6, 9)
    ]
    assert len({tuple(of) for of in each}) > 1


def robust(data, folder, **settings):
    """Accuracy on test images, and on those under PGD, of a network that is trained so."""
    store = TrajectoryStore(folder)
    (trajectory,) = train_experts(data, [3], store, epochs=6, **settings)
    subject = Subject(
        data=data,
        factory=settings["network"],
        trajectories=[trajectory],
        held_out=[],
        evaluation_networks={},
    )
    metrics = Accuracy(attacks={"pgd": PGD}, images=None, evaluation_networks=False, top=[1])(
        subject, {}
    ).metrics
    return metrics["accuracy/expert/clean"], metrics["accuracy/expert/pgd"]


def test_consistency_training_withstands_what_ordinary_training_does_not(data, tmp_path):
    ordinary = robust(data, tmp_path / "a", network=CONSISTENT["network"])
    consistent = robust(data, tmp_path / "b", **CONSISTENT)
    assert ordinary[0] == consistent[0] == 1
    assert consistent[1] > ordinary[1] + 0.3


def test_consistency_in_half_precision_goes_the_same_way(data, tmp_path):
    assert way_of(data, tmp_path, "bf16-mixed", **CONSISTENT) < 0.3


@pytest.mark.parametrize("first_epoch", [0, 1, 3])
def test_a_training_that_starts_later_has_the_learning_rate_of_that_epoch(data, first_epoch):
    schedule = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    module = experts(data, [0, 1], schedule=schedule)
    module.first_epoch = first_epoch
    (optimizer,), _ = module.configure_optimizers()
    assert [g["lr"] for g in optimizer.param_groups] == [pytest.approx(0.1 * 0.5**first_epoch)] * 2
