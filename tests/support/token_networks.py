"""Small transformers, and convolutional networks with channels-last or token parts inside."""

import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig

SHAPE = (3, 32, 32)
CLASSES = 5


class Hybrid(nn.Module):
    """A convolutional stem, and attention with norms of queries and keys ``[n, heads, t, d]``."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.q_norm, self.k_norm = nn.LayerNorm(8), nn.LayerNorm(8)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, images):
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        n, t, c = tokens.shape
        queries, keys, values = self.qkv(tokens).view(n, t, 3, 2, 8).permute(2, 0, 3, 1, 4)
        weights = self.q_norm(queries) @ self.k_norm(keys).transpose(-2, -1)
        mixed = (weights.softmax(-1) @ values).transpose(1, 2).reshape(n, t, c)
        return self.head((tokens + self.proj(mixed)).mean(1))


class Plain(nn.Module):
    """Convolutions, and between them and the head what a subclass adds."""

    def __init__(self):
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()
        self.linear, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, CLASSES)

    def forward(self, images):
        return self.head(self.pool(self.between(self.relu(self.stem(images)))).flatten(1))

    def between(self, maps):
        return maps


class ChannelsLast(Plain):
    """The last layers take maps ``[n, h, w, channels]``."""

    def between(self, maps):
        return self.norm(self.linear(maps.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class PooledTokens(Plain):
    """Tokens that become maps again, without a module that gives these."""

    def between(self, maps):
        n, c, h, w = maps.shape
        return self.linear(maps.flatten(2).mT).mT.reshape(n, c, h, w)


class Attention(Plain):
    """Attention by functions alone."""

    def between(self, maps):
        tokens = maps.flatten(2).mT
        mixed = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return mixed.mT.reshape(maps.shape)


class Shuffled(Plain):
    """Channels change places by reshapes; the last module gives the shuffled maps."""

    def __init__(self):
        super().__init__()
        self.shuffle = nn.ChannelShuffle(2)

    def between(self, maps):
        n, c, h, w = maps.shape
        maps = maps.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.relu(self.shuffle(maps))


def vit():
    return models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=16,
        num_classes=CLASSES,
    )


def swin(stages=2):
    return models.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=8,
        depths=[1] * stages,
        num_heads=[2] * stages,
        window_size=[2, 2],
        num_classes=CLASSES,
    )


def convnext():
    return models.ConvNeXt(
        [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=CLASSES
    )


def maxvit():
    return models.MaxVit(
        input_size=(32, 32),
        stem_channels=8,
        partition_size=2,
        block_channels=[8],
        block_layers=[1],
        head_dim=4,
        stochastic_depth_prob=0.0,
        num_classes=CLASSES,
    )


def resnet():
    return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)


def build(factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return factory().eval()
