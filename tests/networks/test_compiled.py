"""Compiled networks are used only after a check against eager execution."""

import warnings
from functools import partial

import pytest
import torch
from support.builders import small_convnet, train_experts
from torch import nn

from cwx.networks.compiled import compile_networks
from cwx.storage.trajectories import TrajectoryStore

IMAGES = torch.rand(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def networks():
    torch.manual_seed(0)
    return [
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5),
                      nn.Linear(16, 3))
        for _ in range(2)
    ]  # fmt: skip


class Doubled(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return 2 * self.network(images)


def fail(network, **_):
    raise RuntimeError("no compiler\nand a second line")


def test_equal_code_is_used_and_shares_the_parameters(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **_: nn.Sequential(network))
    originals = networks()
    state = {name: value.clone() for name, value in originals[0].state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forms = compile_networks(originals, "default", IMAGES, LABELS)
    assert [form[0] for form in forms] == originals
    # The check trains a copy.
    assert all(torch.equal(value, state[n]) for n, value in originals[0].state_dict().items())


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        (fail, "fails .RuntimeError: no compiler.: continuing without"),
        (lambda network, **_: Doubled(network), "has a relative error of .*continuing without"),
    ],
)
def test_code_that_fails_or_differs_is_not_used(monkeypatch, compiler, reason):
    monkeypatch.setattr(torch, "compile", compiler)
    originals = networks()
    with pytest.warns(UserWarning, match=reason):
        assert compile_networks(originals, "default", IMAGES, LABELS) == originals


@pytest.mark.slow
def test_compiled_experts_learn_the_same_up_to_rounding(data, tmp_path):
    train = partial(
        train_experts, data, [3, 4], network=small_convnet, epochs=1, at_once=2,
    )  # fmt: skip
    eager, compiled = (
        train(store=TrajectoryStore(tmp_path / str(mode)), compile=mode)
        for mode in (None, "default")
    )
    for a, b in zip(eager, compiled, strict=True):
        for name, value in a.state(1).items():
            torch.testing.assert_close(value, b.state(1)[name], rtol=1e-4, atol=1e-5)
