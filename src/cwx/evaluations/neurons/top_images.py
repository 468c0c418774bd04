"""The images that neurons respond to most, of all neurons in one pass (Dong et al., §2.2; D2)."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cwx.functional.images import Normalization
from cwx.functional.top_activations import Highest, Top
from cwx.networks.eval_mode import evaluating
from cwx.networks.layer_outputs import layer_outputs
from cwx.networks.layers import convolutional

log = logging.getLogger(__name__)

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Finds the top images of every channel of some layers.

    Images are gone through once, for all layers together; what is held of them is the activations
    of a batch and, of each neuron, the highest.

    Attributes:
        layers: by name, as of `read_layers`.
        activation: from what a layer gives, ``[n, channels, …]``, to ``[n, channels]``.
        fraction: of the images, how many are the top ones, in 0-1; one at least.
    """

    layers: Sequence[str]
    activation: Activation
    fraction: float

    def __call__(self, network: nn.Module, batches: Iterable[Tensor], count: int) -> dict[str, Top]:
        """The top images of each layer's neurons.

        Args:
            network: in eval mode.
            batches: normalised images ``[n, C, H, W]``, where the network is.
            count: of all images, by which `fraction` is taken.

        Raises:
            ValueError: there is no such layer, or what it gives is not a number.
        """
        k = top_images(self.fraction, count)
        found = {name: Highest(k) for name in self.layers}
        done = 0
        with torch.no_grad(), layer_outputs(network, self.layers, self.activation) as outputs:
            for images in batches:
                indices = torch.arange(done, done + len(images), device=images.device)
                for name, activations in outputs(images).items():
                    found[name].add(activations, indices)
                done += len(images)
        assert done == count
        return {name: Top(*(part.cpu() for part in h.top())) for name, h in found.items()}


@torch.no_grad()
def read_layers(
    network: nn.Module, image_shape: Sequence[int], layers: Sequence[str] | None, setting: str
) -> list[str]:
    """The layers to audit, of which each has channels; by default all that are convolutional.

    Args:
        image_shape: (C, H, W) of what the network takes.
        setting: what names them, in messages.

    Raises:
        ValueError: there is none, or one that has no channels.
    """
    kind = type(network).__name__
    chosen = convolutional(network, image_shape) if layers is None else list(layers)
    if not chosen:
        reason = f"null, and {kind} has no convolution" if layers is None else "empty"
        raise ValueError(f"{setting} is {reason}: name a layer of {kind} or more")
    blank = torch.zeros(1, *image_shape, device=next(network.parameters()).device)
    try:
        with evaluating(network), layer_outputs(network, chosen, _shape) as outputs:
            shapes = outputs(blank)
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from error
    if unfit := [name for name, shape in shapes.items() if len(shape) < 2]:
        raise ValueError(
            f"{setting} has {unfit[0]!r}, but that layer of {kind} gives no tensor [n, channels, "
            "…]: name another"
        )
    return chosen


def _shape(output: object) -> Sequence[int]:
    return output.shape if isinstance(output, Tensor) else ()


def top_images(fraction: float, count: int) -> int:
    """How many images a share of `count` is, one at least."""
    if fraction * count < 1:
        log.warning(
            "a share of %g of %d images is less than one: the top image of a neuron stands for all "
            "that it responds to",
            fraction,
            count,
        )
    return max(1, round(fraction * count))


def normalised(
    parts: Iterable[Tensor], normalization: Normalization, *, size: int, device: torch.device
) -> Iterator[Tensor]:
    """Images as bytes ``[n, C, H, W]``, part by part, as a network takes them.

    Args:
        parts: in order; each is in memory by itself.
        size: at most so many at a time.
        device: where the network is.
    """
    for part in parts:
        for images in part.split(size):
            yield normalization.from_bytes(images.to(device))
