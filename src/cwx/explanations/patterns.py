"""Explanations applied to arbitrary images: patterns, universal perturbations and triggers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from cwx.explanations.images import Explanations, stretch_by_class
from cwx.explanations.margins import Margins
from cwx.functional.images import Normalization
from cwx.functional.mask_search import binarise, pixels, sort_keys, threshold, tie_counts
from cwx.functional.rng import stream
from cwx.functional.trigger_inversion import effective_sizes
from cwx.functional.universal_perturbation import perturb

# Applies an explanation: unit images [n, C, H, W] to unit images.
Attach = Callable[[Tensor], Tensor]

# The background of patterns: black and white pixels are both visible on it.
GREY = 0.5


@dataclass(frozen=True, kw_only=True)
class Patterns:
    """The result of a mask search: soft masks of canvases, several canvases per class.

    Attributes:
        explains: the kind of network that was searched, such as ``expert``.
        masks: soft masks ``[n, H, W]`` in 0-1, before binarisation.
        canvases: unit images ``[n, C, H, W]``, pixels in 0-1.
        labels: the target class of each pattern, ``[n]``.
        searched: boolean mask ``[t]`` of the test images available to the search; each pattern
            uses the non-target ones among them.
        means: ``[n, H, W]`` in 0-1, the masks averaged over the search: they rank pixels with
            equal final masks; ``None`` if ties are broken at random.
        alphas: the weight α of the search of each mask, ``[n]``; ``None`` if no search made it.
        canvas_labels: the class that each canvas was chosen for, ``[n]``; ``None`` if these are
            `labels`.
    """

    explains: str
    masks: Tensor
    canvases: Tensor
    labels: Tensor
    searched: Tensor
    means: Tensor | None = None
    alphas: Tensor | None = None
    canvas_labels: Tensor | None = None

    @property
    def has_other_canvases(self) -> bool:
        """Whether the canvases are those of other classes: a control, no explanation."""
        return self.canvas_labels is not None and bool((self.canvas_labels != self.labels).any())

    def at(self, rows: Tensor) -> "Patterns":
        """Some of the patterns: indices, or a boolean mask ``[n]``."""

        def some(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[rows]

        return replace(
            self,
            masks=self.masks[rows],
            canvases=self.canvases[rows],
            labels=self.labels[rows],
            means=some(self.means),
            alphas=some(self.alphas),
            canvas_labels=some(self.canvas_labels),
        )

    def cut(self, fraction: float) -> "BinaryPatterns":
        """Patterns of round(fraction · H · W) pixels; ties are broken at random, fixed seed.

        Raises:
            ValueError: `fraction` is not in 0-1, or gives 0 pixels.
        """
        count, ranks = pixels(fraction, *self.masks.shape[1:]), sort_keys(self.masks, self.means)
        return BinaryPatterns(
            masks=binarise(ranks, count, stream(0)),
            canvases=self.canvases,
            tied=tie_counts(ranks, count),
        )

    def threshold(self, gamma: float) -> "BinaryPatterns":
        """Patterns of the pixels whose mask is above `gamma`, as many as there are."""
        return BinaryPatterns(
            masks=threshold(self.masks, gamma),
            canvases=self.canvases,
            tied=torch.zeros(len(self.masks), dtype=torch.long),
        )

    def for_display(self, normalization: Normalization) -> Explanations:
        """The masked canvases on grey: m · x_c + (1 − m) · 0.5."""
        mask = self.masks[:, None]
        images = mask * self.canvases + (1 - mask) * GREY
        return Explanations(normalization.normalize(images), self.labels)


@dataclass(frozen=True, kw_only=True)
class BinaryPatterns:
    """Patterns with binary masks, of a given size or above a threshold.

    Attributes:
        masks: boolean masks ``[n, H, W]``, m_γ.
        canvases: unit images ``[n, C, H, W]``, pixels in 0-1.
        tied: ``[n]``, the number of pixels of each mask that tied at a given size.
    """

    masks: Tensor
    canvases: Tensor
    tied: Tensor

    def attach(self, index: int) -> Attach:
        """Overlays pattern `index`: m_γ · x_c + (1 − m_γ) · x (ISCP, §4, the "+" of PW)."""
        mask, canvas = self.masks[index], self.canvases[index]
        return lambda images: torch.where(
            mask.to(images.device), canvas.to(images.device, images.dtype), images
        )

    def on_grey(self) -> Tensor:
        """The patterns on a grey background, unit images ``[n, C, H, W]``."""
        return torch.where(self.masks[:, None], self.canvases, torch.tensor(GREY))


@dataclass(frozen=True, kw_only=True)
class Perturbations:
    """Universal perturbations: each is added to any image, within a norm ball.

    Attributes:
        explains: the kind of network that was attacked, such as ``expert``.
        deltas: ``[n, C, H, W]``, added to pixels in 0-1.
        labels: the target class of each perturbation, ``[n]``.
        epsilons: the radius of each norm ball, for pixels in 0-1, ``[n]``.
        searched: boolean mask ``[t]`` of the test images available to the attack; each
            perturbation uses the non-target ones among them.
    """

    explains: str
    deltas: Tensor
    labels: Tensor
    epsilons: Tensor
    searched: Tensor

    def largest(self, label: int) -> int:
        """The index of the perturbation of a class with the largest radius."""
        items = (self.labels == label).nonzero()[:, 0]
        return int(items[self.epsilons[items].argmax()])

    def attach(self, index: int) -> Attach:
        """Adds perturbation `index` and clips the pixels to 0-1."""
        delta = self.deltas[index]
        return lambda images: perturb(images, delta.to(images.device, images.dtype))

    def for_display(self, normalization: Normalization) -> Explanations:
        """The perturbations, contrast stretched as `Explanations.for_display`."""
        deltas = normalization.normalize(self.deltas)
        return Explanations(stretch_by_class(deltas, self.labels, normalization), self.labels)


@dataclass(frozen=True, kw_only=True)
class Triggers:
    """The smallest trigger of each class that the search finds.

    Attributes:
        explains: the kind of network that was searched, such as ``expert``.
        masks: soft masks ``[n, H, W]`` in 0-1.
        patterns: unit images ``[n, C, H, W]``, pixels in 0-1.
        labels: the target class of each trigger, ``[n]``.
        success: the fraction of held-out images of other classes that the trigger sends to its
            class, ``[n]`` in 0-1.
        required: the success rate that the search asks for, a number in 0-1.
        searched: boolean mask ``[t]`` of the test images that the search used, the held-out ones
            included: they chose the trigger.
    """

    explains: str
    masks: Tensor
    patterns: Tensor
    labels: Tensor
    success: Tensor
    required: Tensor
    searched: Tensor

    @property
    def sizes(self) -> Tensor:
        """The effective size of each trigger in pixels ``[n]``: the L1 norm of its mask, larger if
        `success` is below `required` (`effective_sizes`).
        """
        most = float(self.masks[0].numel())
        return effective_sizes(self.masks.sum((1, 2)), self.success, self.required, most)

    def attach(self, index: int) -> Attach:
        """Overlays trigger `index`: (1 − m) · x + m · p."""
        mask, pattern = self.masks[index], self.patterns[index]

        def overlay(images: Tensor) -> Tensor:
            m = mask.to(images.device, images.dtype)
            return (1 - m) * images + m * pattern.to(images.device, images.dtype)

        return overlay

    def on_grey(self) -> Tensor:
        """The triggers on a grey background, unit images ``[n, C, H, W]``."""
        mask = self.masks[:, None]
        return mask * self.patterns + (1 - mask) * GREY

    def for_display(self, normalization: Normalization) -> Explanations:
        """The triggers on grey, normalised."""
        return Explanations(normalization.normalize(self.on_grey()), self.labels)


MethodOutput = Explanations | Patterns | Perturbations | Triggers | Margins
"""The explanations that one method returns, in one of these forms.

Runs store them by the name of the method (`cwx.explanations.serialisation`), and evaluations
receive them by that name. All forms have `labels` and `for_display`.
"""

Form = TypeVar("Form", Explanations, Patterns, Perturbations, Triggers, Margins)


def of_kind(sources: Mapping[str, MethodOutput], kind: type[Form]) -> dict[str, Form]:
    """The outputs of one form, by the name of the method."""
    return {name: output for name, output in sources.items() if isinstance(output, kind)}
