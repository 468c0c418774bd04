"""Universal targeted perturbations: one δ for all images (ISCP, §4.2 and Appendix E).

Moosavi-Dezfooli et al. (2017) update δ image by image. Here, as in `cwx.functional.attacks`, it
follows the gradient of a batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.functional.images import Normalization


def perturb(images: Tensor, deltas: Tensor) -> Tensor:
    """x + δ, clamped to 0-1, of unit images x and δ on the unit scale; the two broadcast."""
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

    All run through the network as one batch, so the network must be in eval mode, where images do
    not influence each other. Its parameters get no gradients.

    Args:
        network: from normalised images ``[n, C, H, W]`` to logits.
        deltas: on the unit scale, ``[s, C, H, W]``.
        images: unit, ``[s, b, C, H, W]``.
        labels: the target class of each δ, ``[s]``.
        weights: ``[s, b]``, 1 for each image of the batch and 0 for padding.
        normalization: of the network's input.
    """
    with torch.enable_grad():
        leaf = deltas.detach().requires_grad_()
        perturbed = perturb(images, leaf[:, None]).flatten(0, 1)
        logits = network(normalization.normalize(perturbed))
        targets = labels.repeat_interleave(weights.shape[1])
        cross_entropy = F.cross_entropy(logits, targets, reduction="none").view_as(weights)
        losses = (weights * cross_entropy).sum(1)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return gradient, losses.detach()
