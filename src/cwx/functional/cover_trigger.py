"""Triggers that change training images differently from test images, and cover images too."""

from typing import Protocol

import torch
from torch import Tensor

from cwx.functional.backdoor import Trigger


class CoverTrigger(Trigger, Protocol):
    """A trigger for test images, with other changes for training images.

    Each method draws for one image after the other, so that the first images of a longer list get
    the same change.
    """

    def poison(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Copies of training images (bytes ``[n, C, H, W]``) that get the target label.

        Raises:
            ValueError: the trigger does not fit the images.
        """

    def cover(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Copies of training images (bytes ``[n, C, H, W]``) that keep their label.

        Raises:
            ValueError: the trigger does not fit the images.
        """
