"""Slow, literal forms of the papers' formulas, against which the real ones are compared."""

import torch
from torch import Tensor


def descent(network, start: Tensor, images, labels, rate, steps, momentum=0.0, batch=None):
    """θ_{m+1} = θ_m − η v_{m+1} (CWX Eq 3), one parameter at a time, every graph kept."""
    layout = list(network.named_parameters())
    pieces = start.split([p.numel() for _, p in layout])
    state = {n: piece.reshape(p.shape) for (n, p), piece in zip(layout, pieces, strict=True)}
    velocity = {n: torch.zeros_like(p) for n, p in state.items()}
    for step in range(steps):
        seen, its_labels = batch(images, step) if batch else (images, labels)
        logits = torch.func.functional_call(network, state, (seen,))
        loss = -logits.log_softmax(1)[torch.arange(len(seen)), its_labels].mean()
        slopes = {
            n: torch.autograd.grad(loss, p, create_graph=True, retain_graph=True)[0]
            for n, p in state.items()
        }
        velocity = {n: momentum * velocity[n] + slopes[n] for n in state}
        state = {n: p - rate * velocity[n] for n, p in state.items()}
    return flat(state.values())


def finite_difference(function, at: Tensor, step: float) -> Tensor:
    """The gradient of a scalar function by central differences, entry by entry."""
    gradient = torch.zeros_like(at)
    flat, out = at.reshape(-1), gradient.reshape(-1)
    for i in range(len(flat)):
        nudge = torch.zeros_like(flat)
        nudge[i] = step
        up, down = (function((flat + sign * nudge).view_as(at)) for sign in (1, -1))
        out[i] = (up - down) / (2 * step)
    return gradient


def flat(tensors) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def normalised_distance(a, b, c) -> Tensor:
    ratio = torch.dist(b, c) ** 2 / torch.dist(a, c) ** 2
    return ratio + 1 - torch.cosine_similarity(b - a, c - a, dim=0)


def literal_distance(a, b, c) -> Tensor:
    return torch.dist(b, c) ** 2 + 1 - torch.cosine_similarity(b, c, dim=0)


def gaussian_blur(image: list[list[float]], sigma: float, reach: int) -> list[list[float]]:
    """One grey image, pixel by pixel, its edges repeated."""
    import math

    height, width = len(image), len(image[0])
    weights = [math.exp(-(o**2) / (2 * sigma**2)) for o in range(-reach, reach + 1)]
    total = sum(weights) ** 2

    def pixel(y: int, x: int) -> float:
        value = 0.0
        for i, wy in enumerate(weights):
            for j, wx in enumerate(weights):
                row = min(max(y + i - reach, 0), height - 1)
                column = min(max(x + j - reach, 0), width - 1)
                value += wy * wx * image[row][column]
        return value / total

    return [[pixel(y, x) for x in range(width)] for y in range(height)]
