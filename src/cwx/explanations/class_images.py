"""Class images as the parameter of an optimisation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cwx.explanations.images import Explanations
from cwx.functional.images import Normalization
from cwx.functional.rng import stream


class DivergedError(ValueError):
    """An optimisation diverged.

    Attributes:
        last_good: the last explanations before the divergence.
    """

    def __init__(self, message: str, last_good: Explanations) -> None:
        super().__init__(message)
        self.last_good = last_good


class ClassImages(nn.Module):
    """`per_class` images per class as one parameter, initialised from N(0, `std`²).

    Args:
        classes: the number of classes.
        per_class: images per class.
        shape: of an image, (C, H, W).
        std: standard deviation of the initial pixels, on the normalised scale.
        seed: of the initial pixels.

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
        """Save the current images as the last good ones if `finite`.

        Args:
            finite: whether the values computed from the images are finite.
            advice: the message of the error.

        Raises:
            DivergedError: `finite` is False; carries the last good images.
        """
        if not finite:
            raise DivergedError(advice, Explanations(self._last_good.cpu(), self.labels.cpu()))
        self._last_good = self.images.detach().clone()

    @torch.no_grad()
    def clamp(self, normalization: Normalization) -> None:
        """Clamp the images to the range of normalised pixels of real images."""
        self.images.clamp_(*normalization.pixel_range(self.images))

    def snapshot(self) -> Explanations:
        """A copy of the current images on the CPU."""
        return Explanations(self.images.detach().cpu().clone(), self.labels.cpu().clone())
