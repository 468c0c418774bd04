"""Small networks of every kind, with the layer that Grad-CAM uses by default."""

import torch
from torch import nn

from cwx.networks.alexnet import AlexNet
from cwx.networks.convnet import ConvNet
from cwx.networks.densenet import DenseNet
from cwx.networks.resnet import ResNet, basic_block
from cwx.networks.vgg import VGG

SHAPE = {"in_channels": 3, "image_size": (32, 32), "num_classes": 5}


class ExternalNetwork(nn.Module):
    """In-place ReLUs, a module that runs twice, an unused one, and one that returns a tuple."""

    class Pair(nn.Module):
        def forward(self, images):
            return images, images.flatten(1)

    def __init__(self):
        super().__init__()
        self.unused = nn.Conv2d(3, 4, 1)
        self.stem = nn.Conv2d(3, 4, 3, stride=2)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pair = self.Pair()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 5)

    def features(self, images):
        return self.relu(self.again(self.relu(self.again(self.relu(self.stem(images))))))

    def classify(self, features):
        return self.head(self.pool(self.pair(features)[0]).flatten(1))

    def forward(self, images):
        return self.classify(self.features(images))


def norm(channels):
    return nn.BatchNorm2d(channels)


NETWORKS = {
    "convnet": (lambda: ConvNet(depth=2, width=4, norm=norm, **SHAPE), "features"),
    "alexnet": (lambda: AlexNet(width=4, **SHAPE), None),
    "vgg": (lambda: VGG(blocks=[[4], [4]], norm=norm, **SHAPE), None),
    "resnet": (
        lambda: ResNet(stages=[1, 1], block=basic_block, width=4, norm=norm, **SHAPE),
        "blocks",
    ),
    "densenet": (lambda: DenseNet(growth=4, blocks=[2, 2], norm=norm, **SHAPE), None),
    "external": (ExternalNetwork, "relu"),
}


def build_network(name):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return NETWORKS[name][0]().double().eval().requires_grad_(False)


IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 4, 2])
