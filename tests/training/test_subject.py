"""Which networks fit which data, and at which epoch they are shown."""

from dataclasses import replace

import pytest
import torch
from support.builders import small_mlp
from torch import nn

from cwx.networks.eval_mode import device_of, freeze
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
    (copied,) = panel.pop("other")
    assert equal(copied, evaluation_network)
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


def test_every_call_returns_networks_of_its_own(subject):
    """What an evaluation does to its networks does not reach the next evaluation."""
    convolution = nn.Sequential(
        nn.Conv2d(subject.data.image_shape[0], 4, 3), nn.Flatten(), nn.LazyLinear(3)
    )
    convolution(torch.zeros(1, *subject.data.image_shape))
    study = replace(subject, evaluation_networks={"other": [freeze(convolution)]})
    for network in (study.first_network("other"), *study.panel()["other"]):
        assert equal(network, convolution)
        assert not any(p.requires_grad for p in network.parameters())
        assert not any(module.training for module in network.modules())
        network.to(memory_format=torch.channels_last).to(torch.float64)
        with torch.no_grad():
            network[0].weight.zero_()
    assert convolution[0].weight.is_contiguous()
    assert convolution[0].weight.dtype == torch.float32
    assert convolution[0].weight.all()
    experts = study.panel()["expert"]
    assert study.first_network("expert") not in experts


# Its hook computes the weight, with a graph that `deepcopy` refuses.
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_network_with_weight_normalisation_is_copied(subject):
    images = torch.randn(2, *subject.data.image_shape)
    normalised = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(images[0].numel(), 3)))
    study = replace(subject, evaluation_networks={"other": [freeze(normalised)]})
    copied = study.first_network("other")
    assert torch.equal(copied(images), normalised(images))


class Recorder(nn.Module):
    """Records the devices that it was moved to."""

    def __init__(self):
        super().__init__()
        self.devices = []

    def to(self, *args, **settings):
        self.devices += [argument for argument in args if isinstance(argument, torch.device)]
        return super().to(*args, **settings)


def test_networks_are_on_the_device_of_the_study(subject):
    device = torch.device("meta")
    study = replace(subject, device=device, evaluation_networks={"other": [Recorder()]})
    for kind in ("expert", "held-out"):
        for network in (study.first_network(kind), *study.panel()[kind], *study.experts()[kind]):
            assert device_of(network) == device
    assert device_of(study.bank_network(subject.trajectories[0])) == device
    for network in (study.first_network("other"), *study.panel()["other"]):
        assert network.devices == [device]
    assert study.evaluation_networks["other"][0].devices == []
