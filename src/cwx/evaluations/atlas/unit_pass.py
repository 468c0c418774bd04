"""A second pass over the images, once the top images and classes of units are known.

It measures how often a unit fires, how well it detects its class, and where in its top images its
activation is highest. Memory: one batch of activations and counts per unit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cwx.evaluations.neurons.top_images import Activation, Batch
from cwx.functional.auroc import BoundedAuroc, RunningAuroc
from cwx.networks.unit_layers import UnitLayer
from cwx.networks.unit_outputs import unit_outputs
from cwx.training.ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class UnitTask:
    """What to measure of the units of a layer.

    Attributes:
        layer: of the units.
        top: indices of top images, ``[k, units]``; -1 for none.
        detection: counts activations; ``None`` to count nothing.
        classes: the class of each unit, whose detection is measured, ``[units]``; -1 for none.
    """

    layer: UnitLayer
    top: Tensor
    detection: RunningAuroc | None = None
    classes: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class UnitMeasures:
    """Measures of the units of a layer.

    Attributes:
        positions: of the highest value of the unit's map in each top image, in the order of a
            flattened map, ``[k, units]``; -1 for no image.
        fires: the number of images on which the activation is above its resting value, ``[units]``.
        detection: the AUROC of the activation for images of the unit's class; ``None`` if nothing
            was counted.
    """

    positions: Tensor
    fires: Tensor
    detection: BoundedAuroc | None


def measure_units(
    network: nn.Module,
    batches: Iterable[Batch],
    labels: Tensor,
    tasks: Sequence[UnitTask],
    activation: Activation,
    ranks: Ranks,
) -> list[UnitMeasures]:
    """The measures of each task, in one pass of the images.

    Args:
        network: in eval mode.
        batches: of this rank, on the network's device.
        labels: classes of all images of the set, on the CPU.
        tasks: one per layer.
        activation: from the tensor of a layer's units ``[n, units, …]`` to ``[n, units]``.
        ranks: they divide the batches.
    """

    def part() -> list[_Counter]:
        counters = [_Counter(task, activation) for task in tasks]
        reads = {c.task.layer.name: c.read for c in counters}
        layers = [task.layer for task in tasks]
        with torch.no_grad(), unit_outputs(network, layers, reads) as outputs:
            for indices, images in batches:
                for counter in counters:
                    counter.indices, counter.labels = indices, labels[indices]
                readings = outputs(images)
                for counter in counters:
                    counter.count(readings[counter.task.layer.name])
        for counter in counters:
            counter.forget_batch()
        return counters

    first, *others = ranks.collect(part)
    return [counter.result(same_layer) for counter, *same_layer in zip(first, *others, strict=True)]


def sample_activations(
    network: nn.Module,
    batches: Iterable[Batch],
    layers: Sequence[UnitLayer],
    activation: Activation,
    ranks: Ranks,
) -> dict[str, Tensor]:
    """The activations of some images by layer, ``[images, units]`` in any order, on the CPU.

    Args:
        batches: of this rank, on the network's device.
        ranks: they divide the batches.
    """

    def part() -> list[Mapping[str, Tensor]]:
        def read(outputs: Tensor) -> Tensor:
            return activation(outputs).float().cpu()

        with torch.no_grad(), unit_outputs(network, layers, read) as outputs:
            return [outputs(images) for _, images in batches]

    parts = [batch for of_rank in ranks.collect(part) for batch in of_rank]
    return {layer.name: torch.cat([batch[layer.name] for batch in parts]) for layer in layers}


class _Reading(NamedTuple):
    """The units of a layer for one batch.

    Attributes:
        activations: ``[n, units]``.
        rank, unit: of the top images in the batch, ``[m]``.
        position: of the highest value of the unit's map in each, ``[m]``.
    """

    activations: Tensor
    rank: Tensor
    unit: Tensor
    position: Tensor


class _Counter:
    """Counts what a task asks for, batch by batch."""

    def __init__(self, task: UnitTask, activation: Activation) -> None:
        self.task, self._activation = task, activation
        self._positions = torch.full_like(task.top, -1)
        self._fires = torch.zeros(task.top.shape[1], dtype=torch.int64)
        self.forget_batch()

    def forget_batch(self) -> None:
        self.indices = self.labels = torch.empty(0, dtype=torch.int64)

    def read(self, outputs: Tensor) -> _Reading:
        """Read the units' outputs ``[n, units, …]`` of the present batch.

        Nothing is counted yet: of a layer that runs several times, the last reading counts.
        """
        place = torch.searchsorted(self.indices, self.task.top).clamp(max=len(self.indices) - 1)
        rank, unit = (self.indices[place] == self.task.top).nonzero(as_tuple=True)
        row = place[rank, unit].to(outputs.device)
        maps = outputs[row, unit.to(outputs.device)].reshape(len(row), outputs[0, 0].numel())
        # Of units without maps, the activations are the tensor, which may be overwritten.
        return _Reading(self._activation(outputs).clone(), rank, unit, maps.argmax(1))

    def count(self, reading: _Reading) -> None:
        """Count what `read` has read of the present batch."""
        activations = reading.activations
        self._fires += (activations > self.task.layer.resting).sum(0).cpu()
        if self.task.detection is not None and self.task.classes is not None:
            positive = self.labels[:, None] == self.task.classes
            self.task.detection.add(activations.cpu(), positive)
        self._positions[reading.rank, reading.unit] = reading.position.cpu()

    def result(self, others: Sequence["_Counter"]) -> UnitMeasures:
        """The measures of these batches and of those of others."""
        counters = (self, *others)
        detection = self.task.detection
        if detection is not None:
            counted = [c.task.detection for c in others if c.task.detection is not None]
            detection = detection.merged(counted)
        return UnitMeasures(
            positions=torch.stack([c._positions for c in counters]).amax(0),
            fires=torch.stack([c._fires for c in counters]).sum(0),
            detection=detection.result() if detection is not None else None,
        )
