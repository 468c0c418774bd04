"""The search for the mask that cuts a pattern out of a canvas image (ISCP, §3, App. A).

Masks ``[s, H, W]`` lie in [0, 1] and have no channels; canvases are unit images ``[s, C, H, W]``.
The first dimension is the search; searches are independent of each other.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.functional.images import Normalization

# Steps of 0.02 keep mask values on a lattice, up to rounding errors of float sums.
_LATTICE_DECIMALS = 4
# Weight of the tie-breaking values: less than any difference on the lattice.
_TIE_BREAK_WEIGHT = 1e-5


def mix(masks: Tensor, canvases: Tensor, images: Tensor) -> Tensor:
    """x̃ = m · x_c + (1 − m) · x_n (ISCP, Eq 1).

    Args:
        masks: ``[s, H, W]``.
        canvases: ``[s, C, H, W]``.
        images: ``[s, b, C, H, W]``, the batch of each search.

    Returns:
        ``[s, b, C, H, W]``.
    """
    m = masks[:, None, None]
    return m * canvases[:, None] + (1 - m) * images


def total_variation(masks: Tensor) -> Tensor:
    """‖∇m‖₂² / n of each mask ``[s]``, n = H·W, by forward differences inside it (ISCP, Eq 3)."""
    down, right = masks.diff(dim=1), masks.diff(dim=2)
    return (down.square().sum((1, 2)) + right.square().sum((1, 2))) / masks[0].numel()


def search_loss(
    logits: Tensor,
    masks: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    alpha: float | Tensor,
    beta: float,
) -> Tensor:
    """The loss of each search ``[s]``, summed over its batch (ISCP, Algorithm 1, line 5; Eq 2, 3).

        L = Σ_j {−log f_y(x̃_j) + α ‖m‖₁ / n + β ‖∇m‖₂² / n}

    Args:
        logits: of the mixed images, ``[s, b, K]``.
        masks: ``[s, H, W]``.
        labels: the target class of each search ``[s]``.
        weights: ``[s, b]``, 1 for each image of the batch and 0 for padding.
        alpha: weight of the mean of the mask, of all searches or of each search ``[s]``.
        beta: weight of its total variation.
    """
    cross_entropy = F.cross_entropy(
        logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]), reduction="none"
    ).view_as(weights)
    penalty = alpha * masks.mean((1, 2))
    if beta:
        penalty = penalty + beta * total_variation(masks)
    return (weights * cross_entropy).sum(1) + weights.sum(1) * penalty


def search_gradients(
    network: Callable[[Tensor], Tensor],
    masks: Tensor,
    canvases: Tensor,
    images: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    normalization: Normalization,
    alpha: float | Tensor,
    beta: float,
    canvas: bool,
) -> tuple[Tensor, Tensor]:
    """The gradient of each search's loss by its mask or canvas, and the losses ``[s]``.

    All searches run through the network as one batch, so the network must be in eval mode, where
    images do not influence each other. Its parameters get no gradients.

    Args:
        network: from normalised images ``[n, C, H, W]`` to logits.
        masks, labels, weights, alpha, beta: see `search_loss`.
        canvases: unit images ``[s, C, H, W]``.
        images: unit, ``[s, b, C, H, W]``.
        normalization: of the network's input.
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
    """k = round(fraction · H · W).

    Raises:
        ValueError: the fraction is not in 0-1, or k is 0.
    """
    count = round(fraction * height * width)
    if not 0 < fraction <= 1 or count < 1:
        raise ValueError(
            f"a pattern of {fraction:g} of {height}x{width} pixels has {max(count, 0)} pixels: "
            f"give sizes above {0.5 / (height * width):.2g}, as fractions of the image in 0-1"
        )
    return count


def sort_keys(masks: Tensor, tie_breakers: Tensor | None = None) -> Tensor:
    """Values to sort pixels by: the mask, then `tie_breakers` in 0-1 for masks within 1e-4.

    Both are ``[s, H, W]``; the result has that shape in float64.
    """
    values = masks.double().round(decimals=_LATTICE_DECIMALS)
    return values if tie_breakers is None else values + _TIE_BREAK_WEIGHT * tie_breakers


def binarise(keys: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """m_γ: the `count` highest pixels of each mask, boolean ``[s, H, W]`` (Algorithm 1, line 11).

    With ties, no threshold γ gives exactly `count` pixels; the last ones are then drawn at random
    from the pixels that tie.

    Args:
        keys: the result of `sort_keys`.
        count: number of pixels of each mask.
        generator: on the CPU, for the draws.
    """
    values = keys.flatten(1).cpu()
    shuffle = torch.stack([torch.randperm(values.shape[1], generator=generator) for _ in values])
    order = values.gather(1, shuffle).argsort(dim=1, descending=True, stable=True)[:, :count]
    masks = torch.zeros_like(values, dtype=torch.bool).scatter_(1, shuffle.gather(1, order), True)
    return masks.view_as(keys).to(keys.device)


def threshold(masks: Tensor, gamma: float) -> Tensor:
    """m_γ: the pixels of each mask above γ, boolean ``[s, H, W]`` (Algorithm 1, line 11).

    The number of pixels follows from the mask. Values within 1e-4 of γ count as equal to it.

    Args:
        masks: ``[s, H, W]`` in 0-1.
        gamma: γ, in 0-1.
    """
    return masks.double().round(decimals=_LATTICE_DECIMALS) > round(gamma, _LATTICE_DECIMALS)


def best_weights(success: Tensor, labels: Tensor) -> Tensor:
    """The index of the weight with the most successful patterns of a class, by search ``[n]``.

    The success of a weight is the mean over the searches of the class; the first of equal weights
    is chosen.

    Args:
        success: success rates ``[a, n]`` of n searches with each of a weights.
        labels: the class of each search, ``[n]``.
    """
    chosen = torch.zeros_like(labels)
    for label in labels.unique():
        own = labels == label
        means = success[:, own].double().mean(1)
        # On some devices argmax returns any of equal values.
        chosen[own] = (means == means.max()).nonzero()[0, 0]
    return chosen


def tie_counts(keys: Tensor, count: int) -> Tensor:
    """The number of pixels of each mask among which `binarise` draws ``[s]``; 0 without a tie."""
    values = keys.flatten(1)
    threshold = values.sort(1, descending=True).values[:, count - 1, None]
    at_least, equal = (values >= threshold).sum(1), (values == threshold).sum(1)
    return equal * (at_least > count)


class SignDescent(torch.optim.Optimizer):
    """x ← x − η sign(∂L/∂x) (ISCP, Algorithm 1, line 7).

    Args:
        lr: η.

    Raises:
        ValueError: `lr` is not above 0.
    """

    def __init__(self, params: Iterable[Any], *, lr: Annotated[float, "> 0, <= 1"]) -> None:
        if not lr > 0:
            raise ValueError(f"the learning rate lr is {lr}: give a number above 0")
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad.sign())
        return loss
