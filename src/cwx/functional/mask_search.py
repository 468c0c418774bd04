"""The mask that turns part of a canvas image into a pattern (ISCP, §3 and Appendix A; I1-I4, I12).

Masks ``[s, H, W]`` lie in [0, 1] and have no channels; canvases are unit images ``[s, C, H, W]``.
Row i of each belongs to one search, which shares nothing with the others.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.functional.images import Normalization

# Steps of 0.02 leave masks on a lattice, from which sums of floats differ by rounding alone.
_LATTICE_DECIMALS = 4
# What 1 of a second value weighs in the order: less than any difference on the lattice.
_SECOND = 1e-5


def mix(masks: Tensor, canvases: Tensor, images: Tensor) -> Tensor:
    """x̃ = m · x_c + (1 − m) · x_n (ISCP, Eq 1).

    Args:
        masks: ``[s, H, W]``.
        canvases: ``[s, C, H, W]``.
        images: ``[s, b, C, H, W]``, those that each search mixes.

    Returns:
        ``[s, b, C, H, W]``.
    """
    m = masks[:, None, None]
    return m * canvases[:, None] + (1 - m) * images


def total_variation(masks: Tensor) -> Tensor:
    """‖∇m‖₂² / n of each mask, by forward differences that end at the border (ISCP, Eq 3)."""
    down, right = masks.diff(dim=1), masks.diff(dim=2)
    return (down.square().sum((1, 2)) + right.square().sum((1, 2))) / masks[0].numel()


def search_loss(
    logits: Tensor, masks: Tensor, labels: Tensor, weights: Tensor, *, alpha: float, beta: float
) -> Tensor:
    """The loss of each search ``[s]``, summed over its batch (ISCP, Algorithm 1, line 5; Eq 2, 3).

        L = Σ_j {−log f_y(x̃_j) + α ‖m‖₁ / n + β ‖∇m‖₂² / n}

    Args:
        logits: of the mixed images, ``[s, b, K]``.
        masks: ``[s, H, W]``.
        labels: the target class of each search ``[s]``.
        weights: ``[s, b]``, 1 for each image of the batch and 0 for what only fills it up.
        alpha: weighs the share of the mask that is open.
        beta: weighs its total variation.
    """
    surprise = F.cross_entropy(
        logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]), reduction="none"
    ).view_as(weights)
    penalty = alpha * masks.mean((1, 2))
    if beta:
        penalty = penalty + beta * total_variation(masks)
    return (weights * surprise).sum(1) + weights.sum(1) * penalty


def search_gradients(
    network: Callable[[Tensor], Tensor],
    masks: Tensor,
    canvases: Tensor,
    images: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    normalization: Normalization,
    alpha: float,
    beta: float,
    canvas: bool,
) -> tuple[Tensor, Tensor]:
    """The gradient of each search's loss by its mask, or by its canvas, and the losses ``[s]``.

    Searches run through the network as one batch, in which images must not influence each other:
    it is in eval mode. Its parameters get no gradients.

    Args:
        network: from normalised images ``[n, C, H, W]`` to logits.
        images: unit, ``[s, b, C, H, W]``.
        canvas: whether to differentiate by the canvas instead of the mask (Eq 4).
    """
    with torch.enable_grad():
        masks, canvases = masks.detach(), canvases.detach()
        leaf = (canvases if canvas else masks).requires_grad_()
        mixed = normalization.normalize(mix(masks, canvases, images).flatten(0, 1))
        logits = network(mixed).view(*weights.shape, -1)
        losses = search_loss(logits, masks, labels, weights, alpha=alpha, beta=beta)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return gradient, losses.detach()


def pixels(fraction: float, height: int, width: int) -> int:
    """k = round(share · H · W).

    Raises:
        ValueError: the share is not in 0-1, or so small that no pixel is left.
    """
    count = round(fraction * height * width)
    if not 0 < fraction <= 1 or count < 1:
        raise ValueError(
            f"a pattern of {fraction:g} of {height}x{width} pixels has {max(count, 0)} pixels: give "
            f"sizes above {0.5 / (height * width):.2g}, as shares of the image in 0-1"
        )
    return count


def ranked(masks: Tensor, seconds: Tensor | None = None) -> Tensor:
    """By what pixels are ordered: their masks, and among those within 1e-4 by `seconds` in 0-1.

    Both are ``[s, H, W]``; the result is so in float64.
    """
    values = masks.double().round(decimals=_LATTICE_DECIMALS)
    return values if seconds is None else values + _SECOND * seconds


def binarise(ranks: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """m_γ: the `count` highest pixels of each mask, boolean mask ``[s, H, W]`` (Algorithm 1, line 11).

    No threshold γ gives an exact count where pixels tie: those that tie for the last places are
    drawn.

    Args:
        ranks: of `ranked`.
        generator: on the CPU, for the draws.
    """
    values = ranks.flatten(1).cpu()
    places = torch.stack([torch.randperm(values.shape[1], generator=generator) for _ in values])
    order = values.gather(1, places).argsort(dim=1, descending=True, stable=True)[:, :count]
    chosen = torch.zeros_like(values, dtype=torch.bool).scatter_(1, places.gather(1, order), True)
    return chosen.view_as(ranks).to(ranks.device)


def tied(ranks: Tensor, count: int) -> Tensor:
    """How many pixels of each mask tie for the last places of `binarise`, ``[s]``; 0 if none do."""
    values = ranks.flatten(1)
    threshold = values.sort(1, descending=True).values[:, count - 1, None]
    reaching, level = (values >= threshold).sum(1), (values == threshold).sum(1)
    return level * (reaching > count)


class SignDescent(torch.optim.Optimizer):
    """x ← x − η sign(∂L/∂x) (ISCP, Algorithm 1, line 7).

    Args:
        lr: η.

    Raises:
        ValueError: `lr` is not above 0.
    """

    def __init__(self, params: Iterable[Any], *, lr: float) -> None:
        if not lr > 0:
            raise ValueError(f"the rate is {lr}: give one above 0")
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad.sign())
        return loss
