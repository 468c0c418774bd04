"""Settings of the outer optimisation of the distillation."""

import logging
from functools import partial

import pytest
import torch
from support import references
from support.distillation import distill, fitted, inner

from cwx.data.trajectory_segments import SegmentBatch, read_segment
from cwx.functional.inner_learning_rate import matching_rate
from cwx.functional.loss_derivatives import Eager
from cwx.functional.moving_average import Average
from cwx.functional.network_loss import NetworkLoss
from cwx.functional.preconditioning import precondition, spectral_gain

COSINE = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=8)
# The checkpoint before an interruption at step 5 is that of step 3.
SHORT = {"iterations": 8, "checkpoint_every": 3}
SETTINGS = {
    "schedule": {"schedule": COSINE},
    "average": {"average": 0.9},
    "spectral": {"spectral_exponent": 0.5},
    "derived rate": {"inner": inner(learning_rate=None)},
    "derived and learned rate": {"inner": inner(learning_rate=None), "learning_rate_lr": 0.1},
    "adam": {"optimizer": partial(torch.optim.Adam, lr=0.05)},
}


@pytest.fixture(scope="module")
def plain(subject, tmp_path_factory):
    """The images without any of the settings."""
    return fitted(distill(subject, **SHORT), tmp_path_factory.mktemp("plain")).images


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_changes_the_result_and_an_interrupted_run_resumes_to_it(
    name, subject, plain, tmp_path
):
    settings = {**SHORT, **SETTINGS[name]}
    whole = fitted(distill(subject, **settings), tmp_path / "whole")

    class PowerFailure(Exception):
        pass

    module = distill(subject, **settings)
    step = module.training_step

    def training_step(batch, batch_idx):
        if module.global_step == 5:
            raise PowerFailure
        return step(batch, batch_idx)

    module.training_step = training_step
    with pytest.raises(PowerFailure):
        fitted(module, tmp_path / "cut")
    resumed = fitted(distill(subject, **settings), tmp_path / "cut")
    assert torch.equal(resumed.images, whole.images)
    rates = [e.inner_learning_rate for e in (resumed, whole)]
    assert rates[0] == rates[1]
    assert not torch.equal(whole.images, plain)


def test_a_schedule_is_stepped_after_each_outer_step(subject, tmp_path):
    module = distill(subject, **SHORT, schedule=COSINE)
    fitted(module, tmp_path)
    (group,) = module.trainer.optimizers[0].param_groups
    assert group["lr"] == pytest.approx(0, abs=1e-6)


def test_the_average_weights_the_last_updates_most():
    average = Average(torch.zeros(1), 0.5)
    for value in (4.0, 8.0, 16.0):
        average.update(torch.tensor([value]))
    assert average.value().item() == pytest.approx((4 + 2 * 8 + 4 * 16) / 7)


def test_the_average_of_a_constant_is_this_constant():
    average = Average(torch.zeros(3), 0.99)
    for _ in range(5):
        average.update(torch.full((3,), 7.0))
    torch.testing.assert_close(average.value(), torch.full((3,), 7.0))


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 6)])
@pytest.mark.parametrize("exponent", [0.25, 1.0])
def test_preconditioning_is_descent_in_the_scaled_fourier_basis(size, exponent):
    """B Bᵀ g for the linear basis B = F⁻¹ f^(−exponent) F, up to one factor for all images."""
    torch.manual_seed(0)
    gradient = torch.randn(2, 3, *size, dtype=torch.double)
    rows, columns = (torch.fft.fftfreq(n).double() * n for n in size)
    frequency = (rows[:, None] ** 2 + columns[None] ** 2).sqrt().clamp_min(1)

    def basis(images):
        return torch.fft.ifft2(torch.fft.fft2(images) * frequency**-exponent).real

    expected, actual = basis(basis(gradient)), precondition(gradient, exponent)
    factor = (actual * expected).sum() / expected.square().sum()
    torch.testing.assert_close(actual, factor * expected)
    assert torch.equal(precondition(gradient, 0.0), gradient)


def test_preconditioning_keeps_the_length_of_white_noise():
    noise = torch.randn(400, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert precondition(noise, 0.5).std() == pytest.approx(noise.std().item(), rel=0.02)


def test_the_gain_falls_with_the_frequency():
    gain = spectral_gain(8, 8, 0.5)
    assert gain[0, 0] == gain[0, 1] == gain[1, 0]
    assert (gain[0, 1:].diff() < 0).all()


def test_the_derived_rate_moves_as_far_as_the_expert_in_one_step(subject):
    loss = NetworkLoss(subject.network())
    start, target = (loss.vector(subject.held_out[0].state(epoch)) for epoch in (0, 2))
    images, labels = subject.real_images(1).images, subject.real_images(1).labels
    rate = matching_rate(Eager(loss), [(start, target)], images, labels, steps=1)
    leaf = start.clone().requires_grad_()
    end = references.descent(subject.network(), leaf, images, labels, torch.tensor(rate), 1)
    assert end.dist(start).item() == pytest.approx(target.dist(start).item(), rel=1e-4)


def test_the_derived_rate_is_divided_by_the_number_of_steps(subject, tmp_path):
    one, ten = (
        distill(subject, inner=inner(learning_rate=None, steps=steps)).initial_rate
        for steps in (1, 10)
    )
    assert one == pytest.approx(10 * ten)
    explanations = fitted(distill(subject, inner=inner(learning_rate=None), iterations=1), tmp_path)
    assert explanations.inner_learning_rate.item() == pytest.approx(
        distill(subject, inner=inner(learning_rate=None)).initial_rate
    )


def test_a_target_that_equals_the_start_has_no_rate(subject):
    loss = NetworkLoss(subject.network())
    state = loss.vector(subject.held_out[0].state(0))
    images = subject.real_images(1)
    with pytest.raises(ValueError, match="set inner.learning_rate"):
        matching_rate(Eager(loss), [(state, state)], images.images, images.labels, steps=3)


def test_a_learning_rate_that_ran_away_is_reported(subject, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "cwx.methods.distill"):
        fitted(distill(subject, learning_rate_lr=1e-6, iterations=1), tmp_path / "still")
        assert not caplog.messages
        settings = {"inner": inner(learning_rate=1e-4), "learning_rate_lr": 50.0}
        fitted(distill(subject, **settings), tmp_path / "runs")
    assert "the learning rate of training on S moved from 0.0001" in caplog.text


@pytest.mark.parametrize(("largest", "per_class"), [(None, 2), (100, 2), (5, 1), (3, 1), (1, 1)])
def test_the_set_of_many_classes_has_fewer_images_per_class(subject, largest, per_class):
    labels = distill(subject, largest_set=largest).set.labels
    assert labels.bincount().tolist() == [per_class] * 3


class Rank:
    """What a training step uses of the trainer of a rank; `others` are the distances of all."""

    world_size, global_step = 2, 0

    def __init__(self, rank, others):
        self.global_rank, self.others, self.strategy = rank, others, self
        self.distances = None

    def reduce(self, distances, reduce_op):
        assert reduce_op == "mean"
        self.distances = distances
        return torch.stack(self.others).mean(0) if self.others else distances

    def reduce_boolean_decision(self, decision, all):
        return decision


def test_the_logged_ratio_is_that_of_the_segments_of_all_ranks(subject, monkeypatch):
    """Also on a rank without segments, whose own ratio would be 0 of 0."""
    module, logged = distill(subject), {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
    vector = NetworkLoss(subject.network()).vector
    segment = read_segment(subject.trajectories[0], vector, start=0, span=1)
    batches = [SegmentBatch([segment], 1), SegmentBatch([], 1)]

    def step(others):
        distances, ratios = [], []
        for rank, batch in enumerate(batches):
            module._trainer = Rank(rank, others)
            module.training_step(batch, 0)
            distances.append(module._trainer.distances)
            ratios.append(logged[f"{module.stage}/ratio"].item())
        return distances, ratios

    (first, second), (ratio, _) = step([])
    assert second.tolist() == [0, 0]
    assert ratio == pytest.approx((first[0] / first[1]).item())
    _, ratios = step([first, second])
    assert ratios == pytest.approx([ratio, ratio])
    assert logged[f"{module.stage}/matched"] == pytest.approx(first[0].item() / 2)
