"""A network without the trigger of a class, and its control."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from cwx.explanations.patterns import Attach


@dataclass(frozen=True, kw_only=True)
class Cure:
    """The result of the removal of a trigger.

    Attributes:
        label: the class whose trigger was removed.
        attach: overlays the recovered trigger, unit images to unit images.
        networks: first the cured network, then ``control``, which underwent the same without the
            trigger; frozen, in eval mode.
        used: boolean mask ``[t]`` of the test images that the search and the cure used.
    """

    label: int
    attach: Attach
    networks: Mapping[str, nn.Module]
    used: Tensor

    @property
    def cured(self) -> nn.Module:
        """The network without the trigger."""
        return next(iter(self.networks.values()))
