"""Triggers that differ from image to image (Nguyen & Tran 2020, *Input-Aware Dynamic Backdoor*).

The paper trains the generators of the pattern and of the mask together with the classifier. Here
they are networks with fixed random weights, because a corruption comes before the training: the
attack is weaker than the paper's. Images are bytes ``[n, C, H, W]`` in 0-255.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.functional.backdoor import Shape
from cwx.functional.rng import stream
from cwx.functional.trigger_settings import require

# Images that pass through the generators at a time.
_CHUNK = 256
# Standard deviation of the phases of a layer, in radians: with less, all images get one pattern.
_GAIN = 2.0


@dataclass(frozen=True, kw_only=True)
class InputAware:
    """A pattern under a mask, both of which are functions of the image.

        x ← (1 − m(x)) x + m(x) p(x)

    p and m are convolutions of 3x3 pixels with random weights and sines between them. m is 1 at the
    pixels with the highest values of its network. A cover image carries m and p of another image:
    of the one before it in the random order, and the first of its own mirror image (cross-trigger
    mode).

    Attributes:
        area: the fraction of the pixels where m is 1, above 0 and at most 1.
        width: channels between the convolutions.
        depth: convolutions of each network.
        seed: of the weights.
    """

    area: Annotated[float, "> 0, <= 1"]
    width: Annotated[int, ">= 1, <= 1024"]
    depth: Annotated[int, ">= 1, <= 16"]
    seed: Annotated[int, ">= 0, < 2**63"]

    def __post_init__(self) -> None:
        require("corruption.trigger.area", self.area, 0 < self.area <= 1, "above 0, at most 1")
        for name, value, limit in (("width", self.width, 1024), ("depth", self.depth, 16)):
            require(f"corruption.trigger.{name}", value, 1 <= value <= limit, f"1 to {limit}")

    def apply(self, images: Tensor) -> Tensor:
        return self._draw(images, images)

    def mask(self, shape: Shape) -> Tensor:
        return torch.ones(*shape[1:])

    def poison(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The trigger itself: training images carry that of test images."""
        return self.apply(images)

    def cover(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Copies of the images, each with the trigger of the image before it."""
        return self._draw(images, torch.cat([images[:1].flip(-1), images[:-1]]))

    def _draw(self, images: Tensor, sources: Tensor) -> Tensor:
        """The images with the triggers of `sources`, image by image."""
        result = images.clone()
        for rows in torch.arange(len(images), device=images.device).split(_CHUNK):
            unit = sources[rows].double() / 127.5 - 1
            pattern = 127.5 * (1 + self._network(unit, images.shape[1], key=0))
            shown = self._highest(self._network(unit, 1, key=1))
            result[rows] = torch.where(shown, pattern.round().byte(), images[rows])
        return result

    def _highest(self, values: Tensor) -> Tensor:
        """Boolean masks ``[n, 1, H, W]`` of the highest values ``[n, 1, H, W]`` of each image."""
        count = max(1, round(self.area * values.shape[-2:].numel()))
        top = values.flatten(1).topk(count).indices
        shown = torch.zeros_like(values, dtype=torch.bool).flatten(1)
        return shown.scatter(1, top, True).view_as(values)

    def _network(self, images: Tensor, channels: int, *, key: int) -> Tensor:
        """The output ``[n, channels, H, W]`` of a random network, in −1 to 1."""
        generator = stream(self.seed, key)
        for layer in range(self.depth):
            last = layer == self.depth - 1
            shape = (channels if last else self.width, images.shape[1], 3, 3)
            weights = torch.randn(shape, generator=generator, dtype=torch.float64)
            weights *= _GAIN / (9 * shape[1]) ** 0.5
            phases = 3 * torch.randn(shape[0], generator=generator, dtype=torch.float64)
            images = F.conv2d(
                images, weights.to(images.device), phases.to(images.device), padding=1
            ).sin()
        return images
