"""Pictures of neurons: nine images with the regions to which the neuron responds."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cwx.evaluations.neurons.regions import Regions
from cwx.evaluations.neurons.top_images import Activation
from cwx.explanations.drawing import Pixels, to_pixels
from cwx.networks.unit_layers import UnitLayer
from cwx.networks.unit_outputs import Outputs, unit_outputs
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

# Images of a neuron, as in the paper, in so many columns.
IMAGES, COLUMNS = 9, 3
# Pixels between images.
_GAP = 6
# Images from one line of the log to the next.
_LOGGED = 250


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """A neuron that volunteers may see.

    Attributes:
        layer: where its units are read.
        unit: its index in the layer.
        depth: the position of the layer among the audited layers, from 1.
        images: indices of its `IMAGES` test images of highest activation, highest first.
        fractions: p, fractions of the classes among its top images, ``[classes]``.
        lc: level and consistency of p.
    """

    layer: UnitLayer
    unit: int
    depth: int
    images: Sequence[int]
    fractions: Tensor
    lc: float


def draw_pictures(
    neurons: Sequence[Neuron],
    subject: Subject,
    network: nn.Module,
    activation: Activation,
    regions: Regions,
) -> list[Pixels]:
    """A picture per neuron, three rows of three images, as bytes ``[height, width, 3]``.

    Each test image is occluded once, for all neurons and layers that show it. The ranks of the
    subject divide the images.

    Args:
        neurons: to draw.
        subject: the study.
        network: in eval mode, on the subject's device.
        activation: from a layer's output to an activation per channel.
        regions: how regions are highlighted.
    """
    test = subject.data.splits.test
    users: dict[int, list[int]] = {}
    for number, neuron in enumerate(neurons):
        for image in neuron.images:
            users.setdefault(image, []).append(number)
    pictures: list[Pixels | None] = [None] * len(neurons)
    layers = list({neuron.layer.name: neuron.layer for neuron in neurons}.values())
    items = sorted(users.items())
    with unit_outputs(network, layers, activation) as outputs:

        def tiles(done: int) -> list[Pixels]:
            if done and done % _LOGGED == 0:
                log.info("%d of %d images", done, len(items))
            image, numbers = items[done]
            (unit,) = test.images[torch.tensor([image])].float() / 255
            activations = _activations(outputs, [neurons[number] for number in numbers])
            maps = regions.maps(unit, activations, subject)
            return [to_pixels(regions.highlighted(unit, values)) for values in maps]

        drawn = subject.ranks.map(tiles, range(len(items)))
    for (image, numbers), of_image in zip(items, drawn, strict=True):
        for number, tile in zip(numbers, of_image, strict=True):
            position = neurons[number].images.index(image)
            pictures[number] = _placed(tile, pictures[number], position)
    return [picture for picture in pictures if picture is not None]


def _activations(outputs: Outputs, neurons: Sequence[Neuron]) -> Callable[[Tensor], Tensor]:
    """The activations ``[n, neurons]`` of these neurons, from images."""

    def activations(images: Tensor) -> Tensor:
        by_layer = outputs(images)
        return torch.stack([by_layer[n.layer.name][:, n.unit] for n in neurons], 1)

    return activations


def _placed(tile: Pixels, picture: Pixels | None, position: int) -> Pixels:
    """A picture with an image at a position, on white."""
    height, width = tile.shape[0] + _GAP, tile.shape[1] + _GAP
    if picture is None:
        rows = -(-IMAGES // COLUMNS)
        shape = (rows * height - _GAP, COLUMNS * width - _GAP, 3)
        picture = np.full(shape, 255, dtype=np.uint8)
    top, left = (position // COLUMNS) * height, (position % COLUMNS) * width
    picture[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return picture
