"""Perturbations that send any image to a class (ISCP, §4.2 and Appendix E; I11).

What Moosavi-Dezfooli et al. (2017) do image by image is done here as in the attacks of
`cwx.functional.attacks`: one δ for all images of a batch, moved along a gradient.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.functional.images import Normalization


def perturb(images: Tensor, deltas: Tensor) -> Tensor:
    """x + δ, pixels cut to 0-1: unit images that broadcast with δ on the unit scale."""
    return (images + deltas).clamp(0, 1)


def universal_gradients(
    network: Callable[[Tensor], Tensor],
    deltas: Tensor,
    images: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    normalization: Normalization,
) -> tuple[Tensor, Tensor]:
    """The gradient of each δ's loss ``[s, C, H, W]``, and the losses ``[s]``.

        L = Σ_j −log f_y(x_j + δ)

    whose gradient has the sign of the mean's. All run through the network as one batch, in which
    images must not influence each other: it is in eval mode. Its parameters get no gradients.

    Args:
        network: from normalised images ``[n, C, H, W]`` to logits.
        deltas: on the unit scale, ``[s, C, H, W]``.
        images: unit, ``[s, b, C, H, W]``.
        labels: the class that each δ leads to, ``[s]``.
        weights: ``[s, b]``, 1 for each image of the batch and 0 for what only fills it up.
    """
    with torch.enable_grad():
        leaf = deltas.detach().requires_grad_()
        perturbed = perturb(images, leaf[:, None]).flatten(0, 1)
        logits = network(normalization.normalize(perturbed))
        aims = labels.repeat_interleave(weights.shape[1])
        surprise = F.cross_entropy(logits, aims, reduction="none").view_as(weights)
        losses = (weights * surprise).sum(1)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return gradient, losses.detach()
