"""The layers of a network after some units: from the units to the logits."""

import torch
from torch import Tensor, nn

from cwx.networks.unit_layers import UnitLayer
from cwx.networks.unit_outputs import changed_units

# The logits of an image in batches of different sizes differ by rounding, relative to the highest.
_ROUNDING = 1e-3


class LaterLayers:
    """Reads units of a network, and computes its logits with other units in their place.

    The layers before the units run once per call, if all logits are of one image or depend on the
    image through the units alone. The other inputs of the later layers, such as a path around the
    units, are broadcast. Where that is impossible, as in a concatenation, the whole network runs on
    a copy of the image for each row. All are exact. If a layer runs several times, its last run
    counts.

    Args:
        network: in eval mode.
        layer: of the units.
        is_bottleneck: `UnitLayers.is_bottleneck` of the layer.
    """

    def __init__(self, network: nn.Module, layer: UnitLayer, *, is_bottleneck: bool) -> None:
        self._network, self._layer, self._is_bottleneck = network, layer, is_bottleneck
        self._broadcasts, self._last_run = True, 0

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The units ``[n, units, …]`` of normalised images, and their logits ``[n, K]``.

        Raises:
            ValueError: the network does not reach the units.
        """
        units, count = torch.empty(0), 0

        def keep(output: Tensor) -> None:
            nonlocal units, count
            # The next function may overwrite the tensor.
            units, count = output.clone(), count + 1

        with changed_units(self._network, self._layer, keep):
            logits: Tensor = self._network(images)
        if not count:
            raise ValueError(
                f"the network does not run its layer {self._layer.name!r}, or changes the units by "
                "a function that cannot be followed: name another layer"
            )
        self._last_run = count
        if self._is_bottleneck and self._broadcasts and len(images) > 1:
            # A network that reshapes to the number of its images would mix them.
            alone = self._broadcast(images[:1], units)
            scale = logits.abs().amax().clamp(min=1)
            self._is_bottleneck = alone is not None and bool(
                (alone - logits).abs().amax() <= _ROUNDING * scale
            )
        return units, logits

    @torch.no_grad()
    def logits(self, images: Tensor, rows: Tensor, units: Tensor) -> Tensor:
        """The logits ``[m, K]`` of images with other units.

        Args:
            images: those of the last `read`, ``[n, C, H, W]``.
            rows: the image of each row of `units`, indices ``[m]``.
            units: ``[m, units, …]``.
        """
        if self._broadcasts and (self._is_bottleneck or len(images) == 1):
            logits = self._broadcast(images[:1], units)
            if logits is not None:
                return logits
            self._broadcasts = False
        return self._with_units(images[rows], units)

    def _broadcast(self, image: Tensor, units: Tensor) -> Tensor | None:
        """The logits ``[m, K]`` of one image with several units; ``None`` if that is impossible."""
        try:
            logits = self._with_units(image, units)
        except RuntimeError:
            return None
        return logits if len(logits) == len(units) else None

    def _with_units(self, images: Tensor, units: Tensor) -> Tensor:
        run = 0

        def replace(_: Tensor) -> Tensor | None:
            nonlocal run
            run += 1
            return units if run == self._last_run else None

        with changed_units(self._network, self._layer, replace):
            logits: Tensor = self._network(images)
        return logits
