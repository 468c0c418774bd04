"""Noise of a given L2 norm on images of bytes: a control of adversarial perturbations."""

import torch
from torch import Tensor

# The norm agrees within this fraction, as far as whole grey levels and the range 0-255 allow.
TOLERANCE = 0.001
_ROUNDS = 80


@torch.no_grad()
def noise_of_norm(images: Tensor, norms: Tensor, noise: Tensor) -> Tensor:
    """The images plus noise, as bytes, at a given L2 distance from the images.

        x' = clip(round(x + s·n)), with s such that ‖x' − x‖₂ is the norm

    Rounding adds to the norm of the noise and clipping takes from it, so s is searched: ‖x' − x‖₂
    does not decrease with s. It agrees with the norm within `TOLERANCE`. A single grey level is a
    larger step than that on small images, and noise that drives every pixel to black or white may
    be below a very large norm: the nearest x' is then taken.

    Args:
        images: x, bytes ``[n, …]``.
        norms: over all values of an image, in grey levels ``[n]``; 0 or more.
        noise: n, floats ``[n, …]``, such as standard normal; only its direction counts.

    Returns:
        bytes ``[n, …]``.
    """
    start, norms = images.float(), norms.float()
    column = (-1, *[1] * (images.dim() - 1))
    tiny = torch.finfo(torch.float32).tiny
    scale = norms / noise.flatten(1).norm(dim=1).clamp(min=tiny)
    low, high = torch.zeros_like(scale), torch.full_like(scale, torch.inf)
    nearest, nearest_error = start, norms.clone()
    for step in range(_ROUNDS):
        changed = (start + scale.view(column) * noise).round().clamp(0, 255)
        norm = (changed - start).flatten(1).norm(dim=1)
        error = (norm - norms).abs()
        # An image that has its norm stays as it is, so that it does not depend on the others.
        nearer = (error < nearest_error) & (nearest_error > TOLERANCE * norms)
        nearest = torch.where(nearer.view(column), changed, nearest)
        nearest_error = torch.where(nearer, error, nearest_error)
        if (nearest_error <= TOLERANCE * norms).all():
            break
        below = norm < norms
        low, high = torch.where(below, scale, low), torch.where(below, high, scale)
        middle = torch.where(high.isinf(), 2 * scale, (low + high) / 2)
        # The norm is nearly proportional to the scale, except where noise is clipped or rounded.
        proportional = scale * norms / norm.clamp(min=tiny)
        usable = (proportional > low) & (proportional < high) & (step % 2 == 0)
        scale = torch.where(usable, proportional, middle)
    return nearest.to(torch.uint8)
