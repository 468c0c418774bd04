"""What attaches to any image: patterns cut from a canvas, and perturbations of all pixels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from cwx.explanations.images import Explanations
from cwx.functional.images import Normalization
from cwx.functional.mask_search import binarise, pixels, ranked, tied
from cwx.functional.rng import stream
from cwx.functional.universal_perturbation import perturb

# From unit images [n, C, H, W] to unit images.
Attach = Callable[[Tensor], Tensor]

# Between black and white, so that both can be seen on it.
GREY = 0.5


@dataclass(frozen=True, kw_only=True)
class Patterns:
    """What a mask search leaves: a mask for each canvas, several canvases a class.

    Attributes:
        explains: the kind of network searched on, such as ``expert``.
        masks: ``[n, H, W]`` in 0-1, before they are cut to a size.
        canvases: unit images ``[n, C, H, W]``.
        labels: the class of each, ``[n]``.
        searched: boolean mask ``[t]``, the test images of which the non-target ones were searched on.
        means: ``[n, H, W]`` in 0-1, the masks on average over the search, which order pixels
            whose masks are equal at its end; ``None`` if ties are drawn.
    """

    explains: str
    masks: Tensor
    canvases: Tensor
    labels: Tensor
    searched: Tensor
    means: Tensor | None = None

    def cut(self, fraction: float) -> "Cut":
        """The patterns of round(share · H · W) pixels; ties are drawn by a fixed seed.

        Raises:
            ValueError: the share is not in 0-1, or leaves no pixel.
        """
        count, ranks = pixels(fraction, *self.masks.shape[1:]), ranked(self.masks, self.means)
        return Cut(
            masks=binarise(ranks, count, stream(0)),
            canvases=self.canvases,
            tied=tied(ranks, count),
        )

    def shown(self, normalization: Normalization) -> Explanations:
        """The canvases as far as their masks are open, on grey."""
        mask = self.masks[:, None]
        images = mask * self.canvases + (1 - mask) * GREY
        return Explanations(normalization.normalize(images), self.labels)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Patterns of a size.

    Attributes:
        masks: boolean mask ``[n, H, W]``, m_γ.
        canvases: unit images ``[n, C, H, W]``.
        tied: ``[n]``, how many pixels tied for the last places of each.
    """

    masks: Tensor
    canvases: Tensor
    tied: Tensor

    def attach(self, index: int) -> Attach:
        """Overlays a pattern: m_γ · x_c + (1 − m_γ) · x (ISCP, §4, the "+" of PW)."""
        mask, canvas = self.masks[index], self.canvases[index]
        return lambda images: torch.where(
            mask.to(images.device), canvas.to(images.device, images.dtype), images
        )

    def on_grey(self) -> Tensor:
        """The patterns alone, unit images ``[n, C, H, W]``."""
        return torch.where(self.masks[:, None], self.canvases, torch.tensor(GREY))


@dataclass(frozen=True, kw_only=True)
class Perturbations:
    """What is added to all pixels of any image, within a ball.

    Attributes:
        explains: the kind of network attacked, such as ``expert``.
        deltas: on the unit scale, ``[n, C, H, W]``.
        labels: the class that each leads to, ``[n]``.
        epsilons: the radius of each one's ball, on the unit scale ``[n]``.
        searched: boolean mask ``[t]``, the test images of which the non-target ones were attacked.
    """

    explains: str
    deltas: Tensor
    labels: Tensor
    epsilons: Tensor
    searched: Tensor

    def attach(self, index: int) -> Attach:
        """Adds a perturbation, pixels cut to 0-1."""
        delta = self.deltas[index]
        return lambda images: perturb(images, delta.to(images.device, images.dtype))

    def shown(self, normalization: Normalization) -> Explanations:
        """Each perturbation, its range filling that of images."""
        return Explanations(
            normalization.project(normalization.normalize(self.deltas)), self.labels
        )


MethodOutput = Explanations | Patterns | Perturbations
Kind = TypeVar("Kind", Explanations, Patterns, Perturbations)


def of_kind(sources: Mapping[str, MethodOutput], kind: type[Kind]) -> dict[str, Kind]:
    """Those of the sources that are of one kind."""
    return {name: source for name, source in sources.items() if isinstance(source, kind)}
