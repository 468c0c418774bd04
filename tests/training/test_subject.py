"""Which networks fit which data, and at which epoch they are shown."""

from dataclasses import replace

import pytest
import torch
from support.builders import small_mlp

from cwx.training.build import trained_network


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
