"""What excites a channel most, over any number of images (Dong et al., §2.2; D2)."""

import torch
from torch import Tensor


def spatial_maximum(maps: Tensor) -> Tensor:
    """The activation of each channel, its maximum over places: ``[n, channels]``."""
    return maps.flatten(2).amax(2)


class Strongest:
    """The images of highest activation for each channel, of batches that come one by one.

    Attributes:
        values: their activations ``[channels, kept]``, falling.
        indices: which images they are, ``[channels, kept]``.

    Args:
        channels: how many.
        count: at most so many images for each.
    """

    def __init__(self, *, channels: int, count: int) -> None:
        self.count = count
        self.values = torch.empty(channels, 0)
        self.indices = torch.empty(channels, 0, dtype=torch.long)

    def update(self, activations: Tensor, first: int) -> None:
        """Count images `first`, `first` + 1, … by their activations ``[b, channels]``."""
        fresh = torch.arange(first, first + len(activations)).expand(len(self.values), -1)
        values = torch.cat([self.values, activations.T.cpu()], 1)
        indices = torch.cat([self.indices, fresh], 1)
        # Of equal ones the first, whatever the batches.
        order = values.argsort(dim=1, descending=True, stable=True)[:, : self.count]
        self.values, self.indices = values.gather(1, order), indices.gather(1, order)
