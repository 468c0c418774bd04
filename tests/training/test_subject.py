"""Which networks fit which data, and at which epoch they are shown."""

import re
from dataclasses import replace

import pytest
import torch
from support.builders import small_mlp
from torch import nn

from cwx.training.build import check_outputs, trained_network


def convolutions(channels):
    return lambda **_: nn.Sequential(
        nn.Conv2d(channels, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


class Constant(nn.Module):
    """Returns, or raises, the same output for all images."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, images):
        if isinstance(self.output, Exception):
            raise self.output
        return self.output


def constant(output):
    return lambda **_: Constant(output)


@pytest.mark.parametrize("factory", [small_mlp, convolutions(2), constant(torch.zeros(2, 3))])
def test_a_network_that_fits_passes(data, factory):
    check_outputs("network", factory, data)


IMAGES = "does not take the data's images of 2 channels and 4x4 pixels"
REMEDY = "set data.source.channels and data.source.size to its input shape, or choose"
UNFIT = {
    "channels": (
        convolutions(3),
        f"network (Sequential for images of 3 channels) {IMAGES} (Given groups=1, weight of",
    ),
    "size": (
        lambda **_: nn.Sequential(nn.Conv2d(2, 3, 7)),
        "(Sequential for images of 2 channels) does not take the data's images of 2 channels",
    ),
    "an assertion": (constant(AssertionError("Wrong image height!")), f"{IMAGES} (Wrong image"),
    "no reason": (constant(AssertionError()), f"{IMAGES} (AssertionError): {REMEDY}"),
    "many lines": (constant(RuntimeError("no\nway")), f"{IMAGES} (no): {REMEDY}"),
    "too few logits": (
        constant(torch.zeros(2, 2)),
        "network returns outputs of shape (2, 2) for two images, but the data have 3",
    ),
    "a map": (constant(torch.zeros(2, 3, 4, 4)), "returns outputs of shape (2, 3, 4, 4)"),
    "no tensor": (constant({"out": torch.zeros(2, 3)}), "returns outputs of shape dict"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_network_that_does_not_fit_the_data_is_refused(data, case):
    factory, message = UNFIT[case]
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        check_outputs("network", factory, data)
    assert "\n" not in str(caught.value)


def equal(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("epoch", [None, 0, 2, 4])
def test_all_experts_are_used_at_the_epoch_of_the_study(subject, epoch):
    evaluation_network = subject.trained_network(subject.held_out[0])
    study = replace(subject, epoch=epoch, evaluation_networks={"other": [evaluation_network]})
    end = 4 if epoch is None else epoch
    panel = study.panel()
    assert panel.pop("other") == [evaluation_network]
    for kind, trajectories in (("expert", subject.trajectories), ("held-out", subject.held_out)):
        for found, trajectory in zip(panel[kind], trajectories, strict=True):
            assert equal(found, trained_network(small_mlp, subject.data, trajectory, end))
    assert equal(
        study.trained_network(subject.held_out[0], 3),
        subject.trained_network(subject.held_out[0], 3),
    )


@pytest.mark.parametrize("epoch", [None, 2])
def test_state_of_names_the_recorded_state_of_the_first_network(subject, epoch):
    other = subject.held_out[0]
    study = replace(
        subject,
        epoch=epoch,
        fine_tuned=subject.trajectories[1:],
        evaluation_networks={"network": [subject.trained_network(other)]},
        evaluation_trajectories={"network": [other]},
    )
    end = 4 if epoch is None else epoch
    for name, trajectory, shown in (
        ("expert", subject.trajectories[0], end),
        ("held-out", other, end),
        # Judges, and what is trained from the epoch on, are shown at their ends.
        ("fine-tuned", subject.trajectories[1], 4),
        ("network", other, 4),
    ):
        assert study.state_of(name) == (trajectory, shown)
        state = trained_network(small_mlp, subject.data, trajectory, shown)
        assert equal(study.first_network(name), state)


def test_an_epoch_that_was_not_recorded_is_refused(subject):
    with pytest.raises(ValueError, match=r"epoch 9 is not among those recorded in .* \(0-4\)"):
        replace(subject, epoch=9).experts()
