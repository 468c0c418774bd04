"""Images of each class while a method optimises them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cwx.explanations.images import Explanations
from cwx.functional.rng import stream


class DivergedError(ValueError):
    """An optimisation left the finite numbers; carries the last explanations that had not."""

    def __init__(self, message: str, last_good: Explanations) -> None:
        super().__init__(message)
        self.last_good = last_good


class ClassImages(nn.Module):
    """`per_class` images a class as one parameter, from N(0, `std`²) in normalised pixels.

    Raises:
        ValueError: `per_class` is below 1, or `std` is not above 0.
    """

    labels: Tensor

    def __init__(
        self, *, classes: int, per_class: int, shape: Sequence[int], std: float, seed: int
    ) -> None:
        super().__init__()
        if per_class < 1:
            raise ValueError(f"images_per_class is {per_class}: give 1 or more")
        if std <= 0:
            raise ValueError(f"initial_std is {std}: give a number above 0")
        noise = std * torch.randn((classes * per_class, *shape), generator=stream(seed))
        self.images = nn.Parameter(noise)
        self.register_buffer("labels", torch.arange(classes).repeat_interleave(per_class))
        self._last_good = noise.clone()

    def keep(self, *, finite: bool, advice: str) -> None:
        """Note the images as good if what was computed from them is finite.

        Raises:
            DivergedError: it is not; with the last good images.
        """
        if not finite:
            raise DivergedError(advice, Explanations(self._last_good.cpu(), self.labels.cpu()))
        self._last_good = self.images.detach().clone()

    def snapshot(self) -> Explanations:
        """A copy of the images as they stand, on the CPU."""
        return Explanations(self.images.detach().cpu().clone(), self.labels.cpu().clone())
