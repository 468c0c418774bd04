"""Networks with batch norm, trained by two processes, are those of one."""

import pytest
import torch
from support.builders import image_data, sgd, train_experts
from torch import nn

from cwx.storage.trajectories import TrajectoryStore


def every_batch_norm(in_channels, image_size, num_classes):
    """A network with each kind of batch norm in training."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.BatchNorm2d(6, momentum=None, affine=False),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, padding=1),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Unflatten(1, (2, 2)),
        nn.BatchNorm3d(2),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.BatchNorm1d(8),
        nn.Linear(8, num_classes),
    )


@pytest.mark.filterwarnings("ignore")
def test_two_processes_train_the_network_of_one(tmp_path):
    """Of the last batch, each rank has another number of images than of the others."""

    def states(name, **settings):
        store = TrajectoryStore(tmp_path / name)
        (trajectory,) = train_experts(
            image_data(), [0], store, network=every_batch_norm, epochs=5, batch_size=13,
            optimizer=sgd(0.05), trainer_settings=settings,
        )  # fmt: skip
        return trajectory.state(0), trajectory.state(5)

    # Forks first: a process with threads of autograd must not be forked.
    _, divided = states("two", devices=2, strategy="ddp_fork")
    start, alone = states("one")
    assert list(divided) == list(alone)
    for name, tensor in alone.items():
        assert not torch.equal(tensor, start[name])
        torch.testing.assert_close(divided[name], tensor, rtol=1e-4, atol=1e-5)
