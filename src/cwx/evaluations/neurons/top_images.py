"""Top images of all neurons in one pass over the images (Dong et al., §2.2)."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cwx.data.streamed_images import Images, strided_batches
from cwx.functional.images import Normalization
from cwx.functional.top_activations import RunningTopK, TopActivations
from cwx.networks.unit_layers import UnitLayer, UnitLayers
from cwx.networks.unit_outputs import unit_outputs
from cwx.training.ranks import Ranks

log = logging.getLogger(__name__)

Activation = Callable[[Tensor], Tensor]

# The indices of images in their set, ascending, and their normalised pixels ``[n, C, H, W]``.
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Finds the top images of every channel of some layers.

    One pass over the images serves all layers. Memory: the activations of one batch and a running
    top-k per neuron.

    Attributes:
        layers: as returned by `audit_layers`.
        activation: from the tensor of a layer's units ``[n, units, …]`` to ``[n, units]``.
        fraction: k as a fraction of the number of images, in 0-1; k is at least 1.
    """

    layers: Sequence[UnitLayer]
    activation: Activation
    fraction: float

    def __call__(
        self,
        network: nn.Module,
        batches: Iterable[Batch],
        count: int,
        ranks: Ranks = Ranks(),  # noqa: B008
    ) -> dict[str, TopActivations]:
        """The top images of each layer's neurons.

        Args:
            network: in eval mode.
            batches: of this rank, on the network's device.
            count: number of images in the batches of all ranks.
            ranks: they divide the batches.

        Raises:
            ValueError: there is no such layer, or an activation is NaN.
        """
        k = top_count(self.fraction, count)
        tops, done = top_of_units(network, self.layers, self.activation, batches, k, ranks)
        assert done == count
        return tops


def top_of_units(
    network: nn.Module,
    layers: Sequence[UnitLayer],
    activation: Activation,
    batches: Iterable[Batch],
    k: int,
    ranks: Ranks,
) -> tuple[dict[str, TopActivations], int]:
    """The `k` top images of each unit of some layers, and the number of images.

    Args:
        network: in eval mode.
        layers: each is read in the same pass.
        activation: from the tensor of a layer's units ``[n, units, …]`` to ``[n, units]``.
        batches: of this rank, on the network's device.
        k: at least 1.
        ranks: they divide the batches.
    """

    def part() -> tuple[dict[str, RunningTopK], int]:
        running, done = {layer.name: RunningTopK(k) for layer in layers}, 0
        with torch.no_grad(), unit_outputs(network, layers, activation) as outputs:
            for indices, images in batches:
                on_device = indices.to(images.device)
                for name, activations in outputs(images).items():
                    running[name].add(activations, on_device)
                done += len(images)
        # On the CPU, so that other ranks can read them.
        return {name: highest.merged([]) for name, highest in running.items()}, done

    parts = ranks.collect(part)
    first, *others = (of_rank for of_rank, _ in parts)
    tops = {
        name: running.merged(of_rank[name] for of_rank in others).top()
        for name, running in first.items()
    }
    return tops, sum(done for _, done in parts)


def audit_layers(
    network: nn.Module,
    image_shape: Sequence[int],
    layers: Sequence[str] | None,
    setting: str,
    *,
    before_nonlinearity: bool = False,
) -> list[UnitLayer]:
    """The layers of units to audit.

    Args:
        network: any network.
        image_shape: (C, H, W) of its input.
        layers: names; ``None`` for all convolutions and, on tokens, MLPs and the residual stream.
        setting: name of the setting of `layers`, for messages.
        before_nonlinearity: see `UnitLayers`.

    Raises:
        ValueError: there is none, or one has no channels whose axis is known.
    """
    units = UnitLayers(network, image_shape, before_nonlinearity=before_nonlinearity)
    if layers is None:
        return units.all(setting)
    if not layers:
        kind = type(network).__name__
        raise ValueError(f"{setting} is empty: name a layer of {kind} or more")
    return units.named(layers, setting)


def top_count(fraction: float, count: int) -> int:
    """k = round(fraction · count), at least 1; warns if fraction · count is below 1."""
    if fraction * count < 1:
        log.warning(
            "a fraction of %g of %d images is less than one image: one top image per neuron is "
            "used",
            fraction,
            count,
        )
    return max(1, round(fraction * count))


def normalized_batches(
    parts: Iterable[Images],
    normalization: Normalization,
    *,
    size: int,
    device: torch.device,
    ranks: Ranks = Ranks(),  # noqa: B008
) -> Iterator[Batch]:
    """The batches of this rank, from byte images ``[n, C, H, W]``.

    Args:
        parts: in order; one part at a time is in memory, or one batch of images in files.
        normalization: of the images.
        size: at most so many images per batch.
        device: where the normalised images are.
        ranks: the batches are dealt out to them in turn.
    """
    batches = first = 0
    for part in parts:
        own = (ranks.index - batches) % ranks.count
        for start, images in strided_batches(part, size, first=own, step=ranks.count):
            indices = torch.arange(first + start, first + start + len(images))
            yield indices, normalization.from_bytes(images.to(device))
        batches += math.ceil(len(part) / size)
        first += len(part)
