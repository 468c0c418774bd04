"""Signed contributions of units, alone and in groups, to the logits of a network.

A unit is removed by replacement: by 0, by its mean over reference images, or by its maps of other
images (resample ablation). The logits without a unit are those after the replacement.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

# From rows of images [m] and other units of theirs [m, units, …] to logits [m, K].
LogitsOfUnits = Callable[[Tensor, Tensor], Tensor]
# From images [m] and numbers of variants [m] to the units to remove, boolean [m, units].
Removed = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Computes the logits of images without some of their units.

    Attributes:
        later: the layers after the units.
        units: of the images, ``[n, units, …]``.
        replacement: what removed units become, ``[n, draws, units, …]``, or ``[1, 1, units, …]``
            for all images. With several draws, the logits are the mean over them.
        chunk: at most so many rows at once, which bounds the memory.
    """

    later: LogitsOfUnits
    units: Tensor
    replacement: Tensor
    chunk: int

    def logits(self, removed: Removed, images: Tensor, variants: Tensor) -> Tensor:
        """The logits of each pair of an image and a variant, ``[m, K]`` in float64.

        Args:
            removed: the units that a variant of an image lacks.
            images: indices ``[m]``.
            variants: numbers ``[m]``.
        """
        draws = self.replacement.shape[1]
        size = max(1, self.chunk // draws)
        parts = [
            self._part(removed(rows, numbers), rows)
            for rows, numbers in zip(images.split(size), variants.split(size), strict=True)
        ]
        return torch.cat(parts)

    def _part(self, removed: Tensor, rows: Tensor) -> Tensor:
        draws = self.replacement.shape[1]
        axes = [1] * (self.units.dim() - 2)
        mask = removed.view(len(rows), 1, -1, *axes)
        replacement = self.replacement[rows if len(self.replacement) > 1 else slice(None)]
        changed = torch.where(mask, replacement, self.units[rows, None])
        logits = self.later(rows.repeat_interleave(draws), changed.flatten(0, 1))
        return logits.double().view(len(rows), draws, -1).mean(1)

    def whole_logits(self) -> Tensor:
        """The logits with all units, ``[n, K]`` in float64."""
        rows = torch.arange(len(self.units), device=self.units.device)
        return torch.cat(
            [self.later(part, self.units[part]).double() for part in rows.split(self.chunk)]
        )

    def all_variants(self, removed: Removed, count: int) -> Tensor:
        """The logits of `count` variants of every image, ``[n, count, K]`` in float64."""
        n, device = len(self.units), self.units.device
        images = torch.arange(n, device=device).repeat_interleave(count)
        variants = torch.arange(count, device=device).repeat(n)
        return self.logits(removed, images, variants).view(n, count, -1)


def logits_without_each(ablation: Ablation) -> Tensor:
    """The logits without each unit alone, ``[n, units, K]`` in float64.

    The contribution of unit i to logit k is ``logits[:, k] − logits_without_each[:, i, k]``. It is
    positive if the unit raises the logit.
    """
    count = ablation.units.shape[1]

    def single(_: Tensor, variants: Tensor) -> Tensor:
        return variants[:, None] == torch.arange(count, device=variants.device)

    return ablation.all_variants(single, count)


def logits_along(ablation: Ablation, order: Tensor, *, insert: bool = False) -> Tensor:
    """The logits without the first 0 to all units of an order, ``[n, units + 1, K]`` in float64.

    Args:
        ablation: of the images.
        order: units by image, first to last, ``[n, units]``.
        insert: keep the first 0 to all units instead, and remove the others.
    """
    position = order.argsort(1)

    def first(images: Tensor, variants: Tensor) -> Tensor:
        return (position[images] < variants[:, None]) != insert

    return ablation.all_variants(first, order.shape[1] + 1)


def margin(logits: Tensor, predicted: Tensor) -> Tensor:
    """The logit of a class above the highest other logit, ``[n, variants]``.

    Args:
        logits: ``[n, variants, K]`` with K ≥ 2.
        predicted: the class of each image, ``[n]``.
    """
    classes = predicted[:, None, None].expand(*logits.shape[:2], 1)
    others = logits.scatter(2, classes, -torch.inf).amax(2)
    return logits.gather(2, classes)[..., 0] - others


def greedy_removal(ablation: Ablation, predicted: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Remove, step by step, the unit whose removal lowers the margin of the prediction most.

    Each step evaluates every unit that is left together with those removed before, so that it
    costs one pass of the later layers per unit. An image is done when its prediction flips.

    Args:
        ablation: of the images.
        predicted: the predicted class of each image, ``[n]``.
        limit: at most so many units are removed from an image.

    Returns:
        The units in the order of their removal, ``[n, steps]``, −1 after the flip; and the number
        of units without which the network predicts another class, ``[n]``, ∞ if it does not.
    """
    n, count = ablation.units.shape[:2]
    device = ablation.units.device
    removed = torch.zeros(n, count, dtype=torch.bool, device=device)
    flips = torch.full((n,), torch.inf, dtype=torch.float64, device=device)
    order = torch.full((n, min(limit, count)), -1, device=device)
    active = torch.arange(n, device=device)
    units = torch.arange(count, device=device)
    for step in range(order.shape[1]):
        if not len(active):
            break
        logits = ablation.logits(
            partial(_with_unit, removed),
            active.repeat_interleave(count),
            units.repeat(len(active)),
        ).unflatten(0, (len(active), count))
        margins = margin(logits, predicted[active]).masked_fill(removed[active], torch.inf)
        best = margins.argmin(1)
        removed[active, best] = True
        order[active, step] = best
        flipped = logits.argmax(2).gather(1, best[:, None])[:, 0] != predicted[active]
        flips[active[flipped]] = step + 1
        active = active[~flipped]
    return order, flips


def _with_unit(removed: Tensor, images: Tensor, variants: Tensor) -> Tensor:
    return removed[images].scatter(1, variants[:, None], value=True)


def first_flip(logits: Tensor, predicted: Tensor) -> Tensor:
    """The number of units after whose removal the prediction changes first, ``[n]``; ∞ if never.

    Args:
        logits: without the first 0 to all units, ``[n, units + 1, K]``.
        predicted: the prediction with all units, ``[n]``.
    """
    changed = logits.argmax(2) != predicted[:, None]
    # Logits of other batches differ by rounding, which may decide between two equal classes.
    changed[:, 0] = False
    first = changed.int().argmax(1).double()
    return first.masked_fill(~changed.any(1), torch.inf)


def area(probabilities: Tensor) -> Tensor:
    """The area under curves at equal distances over 0-1, ``[n]``, by the trapezoidal rule.

    Args:
        probabilities: ``[n, points]`` with two points or more.
    """
    return torch.trapezoid(probabilities, dx=1 / (probabilities.shape[1] - 1), dim=1)
