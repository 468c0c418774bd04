"""A study of networks with known neurons, before and after fine-tuning, and attacks on it."""

from functools import partial

import torch
from support.builders import train_experts
from torch import nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.storage.shards import Shards
from cwx.storage.trajectories import TrajectoryStore
from cwx.training.subject import Subject


class Columns(nn.Module):
    """Neuron k is the brightness of column k in one channel; the last is always the same."""

    def __init__(self, *, channel=0, **shape):
        super().__init__()
        self.conv = nn.Conv2d(2, 5, (4, 4), bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            for column in range(4):
                self.conv.weight[column, channel, :, column] = 1
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, 3)

    def forward(self, images):
        return self.head(self.relu(self.conv(images)).flatten(1))


def attacked_study(data, folder):
    """The expert reads the first channel, the fine-tuned network the second.

    Adversarial images have their target's first channel and their label's second channel.
    """
    store = TrajectoryStore(folder / "store")
    fixed = {"epochs": 1, "optimizer": partial(torch.optim.SGD, lr=0.0)}
    before = train_experts(data, [0], store, network=Columns, **fixed)
    after = train_experts(data, [1], store, network=partial(Columns, channel=1), **fixed)
    test = data.splits.test
    originals = torch.arange(24).repeat(2)
    labels = test.labels[originals]
    targets = (labels + torch.arange(1, 3).repeat_interleave(24)) % 3
    images = test.images[originals].clone()
    images[:, 0] = test.images[8 * targets + originals % 8, 0]
    shards = Shards(folder / "adversarial", count=48, size=10)
    parts = {"images": images, "labels": labels, "targets": targets, "originals": originals}
    for number in range(len(shards)):
        shards.write(number, {name: part[shards.rows(number)] for name, part in parts.items()})
    shards.complete()
    return Subject(
        data=data,
        factory=Columns,
        trajectories=before,
        fine_tuned=after,
        held_out=[],
        evaluation_networks={},
        adversarial=AdversarialSet.from_shards(
            shards, members=["expert"], attacked=["expert"], metrics={}
        ),
    )
