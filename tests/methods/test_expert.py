"""What may differ in how experts are trained, and what may not in what they learn."""

import pytest
import torch
from conftest import experts, image_data, stages, trained, wanted
from torch import nn

from cwx.functional.augment import Crop, Strategy
from cwx.networks.convnet import ConvNet
from cwx.precision import Precision, Precisions
from cwx.trajectories import TrajectoryStore


def batch_normed(**shape):
    """A network with running statistics, which belong to its trajectory too."""
    return ConvNet(**shape, depth=1, width=4, norm=nn.BatchNorm2d)


def states(trajectories):
    return [trajectory.state(epoch) for trajectory in trajectories for epoch in trajectory.recorded]


def assert_equal(found, expected):
    for a, b in zip(states(found), states(expected), strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("augment", [Strategy({}), Strategy({"crop": Crop(shift=0.3)})])
def test_side_by_side_each_learns_what_it_learns_alone(data, tmp_path, augment):
    settings = {"network": batch_normed, "augment": augment, "epochs": 2}
    alone, together, pairs = (
        trained(data, [3, 4, 5], TrajectoryStore(tmp_path / str(n)), at_once=n, **settings)
        for n in (1, 3, 2)
    )
    assert_equal(together, alone)
    assert_equal(pairs, alone)


def test_only_what_is_missing_is_trained(data, tmp_path):
    store = TrajectoryStore(tmp_path)
    trained(data, [4], store, at_once=1)
    asked = []

    def build(missing):
        asked.extend(expert.seed for expert in missing)
        return experts(data, [expert.seed for expert in missing])

    found = stages().train(build, wanted(3, 4, 5), store, at_once=3)
    assert asked == [3, 5]
    assert [trajectory.identity["seed"] for trajectory in found] == [3, 4, 5]
    assert not list(tmp_path.glob("*/*.ckpt"))


class Power(Exception):
    pass


def test_experts_cut_together_continue_together(data, tmp_path):
    whole = trained(data, [3, 4], TrajectoryStore(tmp_path / "whole"), at_once=2)
    store = TrajectoryStore(tmp_path / "cut")

    def build(missing):
        module = experts(data, [expert.seed for expert in missing])
        step = module.training_step

        def training_step(batches, batch_idx):
            if module.global_step == 19:  # in the third epoch
                raise Power
            return step(batches, batch_idx)

        module.training_step = training_step
        return module

    with pytest.raises(Power):
        stages().train(build, wanted(3, 4), store, at_once=2)
    assert store.find({"seed": 3}) is None
    assert_equal(trained(data, [3, 4], store, at_once=2), whole)


def test_channels_last_learns_the_same_up_to_rounding(data, tmp_path):
    usual, other = (
        trained(
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
        states(trained(data, [3], TrajectoryStore(tmp_path / str(i)), augment=augment, epochs=1))
        for i, augment in enumerate((Strategy({}), Strategy({"crop": Crop(shift=0.5)})))
    )
    name = next(iter(plain[0]))
    assert torch.equal(plain[0][name], moved[0][name])
    assert not torch.equal(plain[1][name], moved[1][name])


def test_a_loss_that_is_not_finite_names_its_expert(tmp_path):
    data = image_data()
    with pytest.raises(ValueError, match=r"loss of expert-3 .* lower procedure.optimizer.lr"):
        trained(
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
        wanted(3),
        TrajectoryStore(tmp_path),
        at_once=1,
    )
    assert {dtype for dtype, training in seen if training} == {torch.bfloat16}
    assert {dtype for dtype, training in seen if not training} == {torch.float32}
    assert all(tensor.dtype == torch.float32 for tensor in found.state(1).values())
