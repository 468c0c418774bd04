"""A network that unlearned the trigger of a class, and its control."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cwx.explanations.patterns import Attach
from cwx.storage.trajectories import Trajectory


@dataclass(frozen=True, kw_only=True)
class Cure:
    """The result of the unlearning of a trigger.

    Attributes:
        label: the class whose trigger was unlearned.
        attach: overlays the recovered trigger, unit images to unit images.
        networks: ``unlearned``, fine-tuned on images with the trigger and their own labels, and
            ``control``, fine-tuned on the same images without it.
        used: boolean mask ``[t]`` of the test images of the fine-tuning and of the search.
    """

    label: int
    attach: Attach
    networks: Mapping[str, Trajectory]
    used: Tensor
