"""Search for the smallest change of any image that sends it to a class: a mask and a pattern.

The reconstruction of backdoor triggers of Neural Cleanse (Wang et al. 2019, §IV), for many searches
at once. A search optimises logits ``[C + 1, H, W]``: the first plane gives the mask m = σ(·), the
others the pattern p = σ(·), in unit pixels. All searches are independent of each other.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.functional.images import Normalization
from cwx.functional.mask_search import mix


def masks_and_patterns(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The masks ``[…, H, W]`` and patterns ``[…, C, H, W]`` in 0-1 of logits ``[…, C + 1, H, W]``.

    Grey networks have C = 1.
    """
    values = logits.sigmoid()
    return values.select(-3, 0), values.narrow(-3, 1, values.shape[-3] - 1)


def stamp(images: Tensor, masks: Tensor, patterns: Tensor) -> Tensor:
    """(1 − m) · x + m · p for each search and image.

    Args:
        images: unit, ``[s, b, C, H, W]``.
        masks: ``[s, H, W]``, or ``[s, b, H, W]`` with a mask for each image.
        patterns: ``[s, C, H, W]``, or ``[s, b, C, H, W]``.

    Returns:
        ``[s, b, C, H, W]``.
    """
    if masks.ndim == 3:
        return mix(masks, patterns, images)
    m = masks[:, :, None]
    return m * patterns + (1 - m) * images


def noise_scale(step: int, steps: int, initial: float) -> float:
    """The standard deviation of the noise on the logits: linear from `initial` to 0 at half time.

    A network answers to a trigger only when most of it is there, so that the gradient of a search
    that begins elsewhere does not lead to it. With noise the search averages over many masks and
    patterns, and finds small triggers from one start.
    """
    return initial * max(0.0, 1 - 2 * step / steps)


def learning_rate_factor(step: int, steps: int, final: float) -> float:
    """Half a cosine from 1 at step 0 to `final` at `steps`."""
    return final + (1 - final) * (1 + math.cos(math.pi * step / steps)) / 2


def adapt_weights(weights: Tensor, hit: Tensor, growth: float, limits: tuple[float, float]) -> None:
    """Adapt the weight λ of each mask's size ``[s]``, in place, between `limits`.

        λ ← λ · g if the batch reached the success rate, else λ / g⁴

    so that four of five batches reach it in equilibrium. Neural Cleanse doubles or divides by
    2^1.5 after several batches; smaller changes at every batch need fewer steps.

    Args:
        weights: λ, above 0.
        hit: boolean, whether the batch of a search reached the success rate, ``[s]``.
        growth: g, above 1.
    """
    weights.mul_(torch.where(hit, growth, growth**-4)).clamp_(*limits)


def inversion_gradients(
    network: Callable[[Tensor], Tensor],
    logits: Tensor,
    images: Tensor,
    labels: Tensor,
    weights: Tensor,
    size_weights: Tensor,
    noise: Tensor | None,
    *,
    normalization: Normalization,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of each search's loss, its loss and its success.

        L = (1/b) Σ_j −log f_y((1 − m) x_j + m p) + λ mean(m)

    All searches run through the network as one batch, so it must be in eval mode, where images do
    not influence each other. Its parameters get no gradients.

    Args:
        network: from normalised images ``[n, C, H, W]`` to logits.
        logits: of masks and patterns, ``[s, C + 1, H, W]``.
        images: unit, ``[s, b, C, H, W]``.
        labels: the target class of each search ``[s]``.
        weights: ``[s, b]``, 1 for each image of the batch and 0 for padding.
        size_weights: λ of each search, ``[s]``.
        noise: added to the logits for each image, ``[s, b, C + 1, H, W]``; ``None`` for none.
        normalization: of the network's input.

    Returns:
        gradients ``[s, C + 1, H, W]``; losses ``[s]``, summed over the images of the batch; and the
        fraction of the images that are classified as the target class, ``[s]`` in 0-1.
    """
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        masks, patterns = masks_and_patterns(leaf if noise is None else leaf[:, None] + noise)
        stamped = normalization.normalize(stamp(images, masks, patterns).flatten(0, 1))
        outputs = network(stamped).view(*weights.shape, -1)
        entropy = F.cross_entropy(
            outputs.flatten(0, 1), labels.repeat_interleave(weights.shape[1]), reduction="none"
        ).view_as(weights)
        counts = weights.sum(1)
        sizes = masks_and_patterns(leaf)[0].mean((1, 2))
        losses = (weights * entropy).sum(1) / counts + size_weights * sizes
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    hits = outputs.argmax(2) == labels[:, None]
    return gradient, (losses * counts).detach(), (hits * weights).sum(1) / counts


@torch.no_grad()
def success_rates(
    network: Callable[[Tensor], Tensor],
    logits: Tensor,
    images: Tensor,
    image_labels: Tensor,
    labels: Tensor,
    *,
    normalization: Normalization,
    batch_size: int,
) -> Tensor:
    """The fraction of images of other classes that each search sends to its class, ``[s]`` in 0-1.

    Args:
        logits: of masks and patterns, ``[s, C + 1, H, W]``.
        images: unit, ``[n, C, H, W]``.
        image_labels: ``[n]``.
        labels: the target class of each search ``[s]``.
        batch_size: images in a forward pass.

    Returns:
        NaN for a class without images of other classes.
    """
    rates = []
    for target, own in zip(labels.tolist(), logits, strict=True):
        masks, patterns = masks_and_patterns(own[None])
        others = images[image_labels != target]
        hits = 0
        for part in others.split(batch_size):
            stamped = normalization.normalize(stamp(part[None], masks, patterns)[0])
            hits += int((network(stamped).argmax(1) == target).sum())
        rates.append(hits / len(others) if len(others) else math.nan)
    return torch.tensor(rates, device=logits.device)


def effective_sizes(sizes: Tensor, rates: Tensor, required: Tensor | float, most: float) -> Tensor:
    """The sizes of masks, larger if they do not reach the required success rate, ``[s]``.

        size · max(1, odds(required) / odds(rate)),  odds(p) = p / (1 − p),  at most `most`

    Without a threshold: a search that ends a little below the required rate is a little worse than
    one that reaches it, and not the worst of all.

    Args:
        sizes: L1 norms of the masks, in pixels ``[s]``.
        rates: success rates, 0-1 ``[s]``.
        required: the success rate asked for, above 0; 1 counts as 0.999.
        most: the number of pixels of the image.
    """
    needed = torch.as_tensor(required, dtype=sizes.dtype, device=sizes.device)
    penalty = _odds(needed) / _odds(rates.to(sizes.dtype))
    return (sizes * penalty.clamp_min(1)).clamp_max(most)


def trigger_keys(effective: Tensor, rates: Tensor, sizes: Tensor) -> Tensor:
    """Keys ``[3, s]`` by which triggers are compared, see `precedes`: the smaller, the better.

    The effective size decides. Among equal ones, which are usually clamped, it is the higher
    success rate, then the smaller mask.

    Args:
        effective: see `effective_sizes`, ``[s]``.
        rates: success rates, 0-1 ``[s]``.
        sizes: L1 norms of the masks, in pixels ``[s]``.
    """
    return torch.stack([effective, -rates, sizes])


def precedes(first: Tensor, second: Tensor) -> Tensor:
    """Whether each column of keys ``[k, s]`` is lexicographically below that of `second`, ``[s]``.

    >>> precedes(torch.tensor([[1, 1, 1], [2, 2, 2]]), torch.tensor([[2, 1, 1], [1, 3, 2]]))
    tensor([ True,  True, False])
    """
    below = torch.zeros_like(first[0], dtype=torch.bool)
    equal = torch.ones_like(below)
    for own, other in zip(first, second, strict=True):
        below |= equal & (own < other)
        equal &= own == other
    return below


def _odds(rates: Tensor) -> Tensor:
    bounded = rates.clamp(1e-3, 1 - 1e-3)
    return bounded / (1 - bounded)
