"""The unroll on every kind of network, from noise: exact, finite, and of use."""

import functools

import pytest
import torch
from support import references
from torch import nn

from cwx.functional.network_loss import NetworkLoss
from cwx.functional.unroll import Descent, Exact, Plain
from cwx.networks.alexnet import AlexNet
from cwx.networks.convnet import ConvNet, instance_norm
from cwx.networks.mlp import MLP
from cwx.networks.resnet import ResNet, basic_block, bottleneck
from cwx.networks.vgg import VGG

NETWORKS = {
    "alexnet": functools.partial(AlexNet, width=8),
    "convnet": functools.partial(ConvNet, depth=2, width=8, norm=instance_norm),
    "mlp": functools.partial(MLP, depth=2, width=16),
    "resnet, basic blocks": functools.partial(
        ResNet, stages=[1, 1], block=basic_block, width=8, norm=nn.BatchNorm2d
    ),
    "resnet, bottlenecks": functools.partial(
        ResNet, stages=[1, 1], block=bottleneck, width=4, norm=nn.BatchNorm2d
    ),
    "vgg, batch norm": functools.partial(VGG, blocks=[[8], [8, 8]], norm=nn.BatchNorm2d),
    "vgg, no norm": functools.partial(VGG, blocks=[[8], [8, 8]], norm=None),
}
LABELS = torch.arange(3).repeat_interleave(2)
WHOLE = {"microbatch": 4, "keep_every": 3, "offload": False, "compile": None, "memory": None}


class Setting:
    """A start, a place that training on other images leads to, and noise to optimise."""

    def __init__(self, name):
        torch.manual_seed(1)
        network = NETWORKS[name](in_channels=3, image_size=(16, 16), num_classes=3).double()
        self.loss = NetworkLoss(network)
        self.start = self.loss.vector(dict(network.named_parameters())).detach()
        self.images = torch.randn(6, 3, 16, 16, dtype=torch.float64)
        self.rate = torch.tensor(0.05, dtype=torch.float64)
        # Each class bright in columns of its own.
        real = torch.randn(30, 3, 16, 16, dtype=torch.float64)
        labels = torch.arange(30) % 3
        for label in range(3):
            real[labels == label, :, :, 5 * label : 5 * label + 5] += 2
        training = self.descent(10, lambda images, _: (images, labels))
        self.target = Exact(self.loss, **WHOLE)(training, self.start, real, self.rate).detach()

    def descent(self, steps, batch=lambda images, _: (images, LABELS)):
        return Descent(steps=steps, momentum=0.0, batch=batch)

    def distance(self, unroll, images):
        reached = unroll(self.descent(4), self.start, images, self.rate)
        return references.normalised_distance(self.start, reached, self.target)

    def gradient(self, unroll):
        images = self.images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.distance(unroll, images), images)
        return gradient


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_is_exact(name):
    setting = Setting(name)
    found, expected = (
        setting.gradient(unroll) for unroll in (Exact(setting.loss, **WHOLE), Plain(setting.loss))
    )
    assert found.isfinite().all()
    assert (found - expected).norm() < 1e-10 * expected.norm()


@pytest.mark.parametrize("name", NETWORKS)
def test_noise_becomes_images_that_lead_nearer_to_the_target(name):
    setting = Setting(name)
    unroll = Exact(setting.loss, **WHOLE)
    images = setting.images.clone().requires_grad_()
    optimizer = torch.optim.Adam([images], lr=0.1)
    distances = []
    for _ in range(12):
        distance = setting.distance(unroll, images)
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
        distances.append(distance.item())
    assert images.isfinite().all()
    assert min(distances[-3:]) < 0.9 * distances[0]
