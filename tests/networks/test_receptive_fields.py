"""Receptive fields are those that a change of single pixels shows."""

import pytest
import torch
from support.vision_networks import NETWORKS, SHAPE, build_network
from torch import nn
from torch.nn import functional as F

from cwx.networks.receptive_fields import receptive_fields
from cwx.networks.unit_layers import UnitLayer, UnitLayers
from cwx.networks.unit_outputs import unit_outputs

SIZE = (3, 12, 10)


class Small(nn.Module):
    """Strides, dilation, groups, poolings, an addition, a concatenation and a squeeze."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.dilated = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.norm = nn.GroupNorm(2, 4)
        self.near, self.far = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, (1, 3), padding=(0, 1))
        self.branches = nn.Identity()
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.last = nn.Conv2d(4, 3, 1)
        self.gate = nn.Linear(3, 3)
        self.head = nn.Linear(3, 5)

    def forward(self, images):
        x = F.relu(self.stem(images), inplace=True)
        y = self.norm(self.dilated(x))
        y += x
        x = F.gelu(y)
        x = self.branches(torch.cat([self.near(x), self.far(x)], 1))
        x = F.softshrink(self.last(self.pool(x)))
        return self.head(self.gate(x.amax((2, 3))).sigmoid())


def changes(network, layer, shape):
    """Boxes around the pixels whose change alters a position, ``[units, positions, 4]``.

    Weights and images are positive and norms linear, so that no unit is at rest and no change
    cancels.
    """
    base = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).double() + 1

    def read(outputs):
        return outputs.reshape(*outputs.shape[:2], -1)

    with torch.no_grad(), unit_outputs(network, [layer], read) as outputs:
        before = outputs(base)[layer.name]
        height, width = shape[1:]
        boxes = torch.tensor([width, height, 0, 0]).repeat(*before.shape[1:], 1)
        for row in range(height):
            for column in range(width):
                changed = base.clone()
                # Above the maximum of any window.
                changed[..., row, column] += 1e6
                affected = (outputs(changed)[layer.name] != before)[0]
                pixel = torch.tensor([column, row, column + 1, row + 1])
                wider = torch.cat(
                    [boxes[..., :2].minimum(pixel[:2]), boxes[..., 2:].maximum(pixel[2:])], -1
                )
                boxes = torch.where(affected[..., None], wider, boxes)
    return boxes


def positive(network):
    network = network.double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            # The statistics of whole maps do not count.
            module.forward = lambda maps: maps
    return network


def all_layers(network, names):
    layers = {layer.name: layer for layer in UnitLayers(network, SIZE).all("x")}
    return [layers.get(name) or UnitLayer(name=name) for name in names]


def test_boxes_are_those_of_changed_pixels():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Small()
    names = ["stem", "norm", "near", "far", "branches", "last", "gate"]
    layers = all_layers(network, names)
    fields = receptive_fields(network, SIZE, layers)
    network = positive(network)
    for layer in layers:
        expected = changes(network, layer, SIZE)
        boxes = fields[layer.name].expand_as(expected)
        assert torch.equal(boxes.long(), expected), layer.name
    assert fields["branches"].shape[0] == 4
    assert not torch.equal(fields["branches"][0], fields["branches"][3])
    assert fields["gate"].tolist() == [[[0, 0, 10, 12]]]


@pytest.mark.parametrize("name", [*NETWORKS])
def test_no_pixel_outside_of_a_box_changes_a_position(name):
    """Real weights: a change may be lost, but never comes from outside."""
    network = build_network(name)
    shape = (3, *SHAPE["image_size"])
    layers = UnitLayers(network, shape).all("x")
    fields = receptive_fields(network, shape, layers)
    base = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).double()
    pixels = torch.cartesian_prod(torch.arange(0, 32, 9), torch.arange(0, 32, 9))
    changed = base.repeat(len(pixels), 1, 1, 1)
    for image, (row, column) in zip(changed, pixels.tolist(), strict=True):
        image[:, row, column] += 1
    with torch.no_grad(), unit_outputs(network, layers) as outputs:
        before, after = dict(outputs(base)), dict(outputs(changed))
    for layer in layers:
        affected = (after[layer.name] != before[layer.name]).flatten(2)
        x0, y0, x1, y1 = fields[layer.name].unbind(-1)
        row, column = (pixels[:, axis, None, None] for axis in range(2))
        inside = (x0 <= column) & (column < x1) & (y0 <= row) & (row < y1)
        assert affected.any()
        assert not (affected & ~inside).any(), layer.name


class Tokens(nn.Module):
    """Patches as tokens with a class token, an MLP before attention, and attention."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.ones(1, 1, 8))
        self.mlp = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.after = nn.Linear(8, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + F.gelu(self.mlp(self.norm(x)))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(F.gelu(self.after(x)).mean(1))


def test_tokens_have_their_patch_until_attention():
    network = Tokens().eval()
    layers = [UnitLayer(name=name, axis=2) for name in ("mlp", "after")]
    fields = receptive_fields(network, (3, 8, 8), layers)
    # The class token depends on no pixel yet.
    patches = [[x, y, x + 4, y + 4] for y in (0, 4) for x in (0, 4)]
    assert fields["mlp"].tolist() == [[[0, 0, 0, 0], *patches]]
    assert fields["after"].unique(dim=1).tolist() == [[[0, 0, 8, 8]]]


class Unsafe(nn.Module):
    """Divides by a deviation that is 0 where all values are the same."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.next = nn.Conv2d(4, 4, 1)

    def forward(self, images):
        x = self.conv(images)
        x = self.next((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True))
        return x.mean((2, 3))


def test_a_network_that_divides_by_deviations_is_followed_too():
    network = Unsafe().eval()
    fields = receptive_fields(network, (3, 6, 5), [UnitLayer(name="next")])
    expected = [[x, y, x + 3, y + 3] for y in range(4) for x in range(3)]
    assert fields["next"].tolist() == [expected]


def test_mode_and_weights_stay():
    network = Small().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    receptive_fields(network, SIZE, [UnitLayer(name="last")])
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
