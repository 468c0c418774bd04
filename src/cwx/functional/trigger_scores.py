"""What explanations reveal of a backdoor's trigger, and how close that comes to the true one.

Images are float tensors ``[n, C, H, W]`` on any affine scale: every score stays what it is if all
intensities are multiplied by a positive number and shifted. A true trigger is a mask ``[H, W]``
of ones and zeros and a pattern ``[C, H, W]``, as `cwx.functional.backdoor` gives them.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Only a perfect match, whose error is rounding, comes so far.
PSNR_CEILING = 100.0


class Revealed(NamedTuple):
    """What is revealed of a class.

    Attributes:
        map: how far each pixel matters, ``[H, W]``, 0 or more.
        pattern: what is there, ``[C, H, W]``.
    """

    map: Tensor
    pattern: Tensor


def set_apart(own: Tensor, others: Tensor) -> Revealed:
    """What sets the images `own` of a class apart from `others`."""
    return Revealed(revealed_map(own, others), revealed_pattern(own, others))


def revealed_pattern(own: Tensor, others: Tensor) -> Tensor:
    """The mean of the images `own` of a class less that of `others`, ``[C, H, W]`` in float64."""
    return own.double().mean(0) - others.double().mean(0)


def revealed_map(own: Tensor, others: Tensor) -> Tensor:
    """How far a class stands out at each pixel, ``[H, W]``, 0 or more.

        mean over channels of |mean(own) − mean(others)| / (σ + σ̄)

    σ is the standard deviation of a pixel over `others`, σ̄ its mean over all pixels: without
    that floor, pixels where nothing ever varies would stand out most. Without any variance the
    denominator is 1.
    """
    spread = others.double().std(0, correction=0)
    floor = spread.mean()
    scale = spread + floor if floor > 0 else torch.ones_like(spread)
    return (revealed_pattern(own, others).abs() / scale).mean(0)


def top_pixels(values: Tensor, count: int) -> Tensor:
    """The mask ``[H, W]`` of the `count` highest `values`; entries in 0-1 that add up to `count`.

    Pixels that tie for the last places share them equally, so that a constant map marks every
    pixel alike and no corner by accident.
    """
    threshold = values.flatten().sort(descending=True).values[count - 1]
    above, tied = values > threshold, values == threshold
    fraction = (count - above.sum()) / tied.sum()
    return above.double() + tied * fraction


def placed(values: Tensor, mask: Tensor) -> Tensor:
    """The true mask ``[H, W]``, moved to where the mean of `values` under it is highest.

    Places that tie share alike, entries in 0-1 that add up to the size of the mask, so that a
    constant map marks no corner by accident.
    """
    rows, columns = (mask.any(axis).nonzero() for axis in (1, 0))
    shape = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].double()[None, None]
    sums = F.conv2d(values.double()[None, None], shape)
    best = torch.isclose(sums, sums.max(), rtol=1e-9, atol=0).double()
    return F.conv_transpose2d(best / best.sum(), shape)[0, 0]


def mask_iou(first: Tensor, second: Tensor) -> float:
    """Σ min / Σ max of two masks ``[H, W]`` in 0-1: intersection over union, 0-1."""
    return (torch.minimum(first, second).sum() / torch.maximum(first, second).sum()).item()


def location_error(first: Tensor, second: Tensor) -> float:
    """Pixels between the centres of mass of two masks ``[H, W]``, from 0 to the diagonal."""
    return torch.dist(_centre(first), _centre(second)).item()


def correlation(revealed: Tensor, true: Tensor) -> float:
    """Pearson's correlation of two tensors of one shape, −1 to 1; 0 if either is constant."""
    first, second = (
        torch.nn.functional.normalize((t - t.mean()).flatten(), dim=0)
        for t in (revealed.double(), true.double())
    )
    return (first @ second).clamp(-1, 1).item()


def affine_match(revealed: Tensor, true: Tensor) -> Tensor:
    """a · `revealed` + b with the a ≥ 0 and b of least squared error to `true`."""
    revealed, true = revealed.double(), true.double()
    centred = revealed - revealed.mean()
    variance = centred.square().sum()
    gain = (centred * true).sum().clamp_min(0) / variance if variance > 0 else variance
    return gain * centred + true.mean()


def psnr(revealed: Tensor, true: Tensor) -> float:
    """Peak signal to noise ratio in dB, after `affine_match` of `revealed` to `true`.

        10 log₁₀ (peak² / mean squared error),  peak = max(true) − min(true)

    As the match is the best one, this is a function of the correlation ρ alone, of
    1 − max(ρ, 0)², and never below 10 log₁₀ 4 ≈ 6.02, what a flat image reaches at worst. A
    perfect match has `PSNR_CEILING`. `true` must not be constant.
    """
    peak = true.double().max() - true.double().min()
    error = (affine_match(revealed, true) - true).square().mean()
    return (10 * (peak.square() / error).log10()).clamp_max(PSNR_CEILING).item()


def is_local(mask: Tensor) -> bool:
    """Whether a trigger has a place: the box around its mask is at most half of the image.

    Stripes may leave out as many pixels as they touch, and still be everywhere.
    """
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return 2 * int(box) <= mask.numel()


def trigger_scores(revealed: Revealed, *, mask: Tensor, pattern: Tensor) -> dict[str, float]:
    """How close what is revealed of a class comes to the true trigger.

    - ``location_error``, between the true mask and the same where the revealed map is highest
      (`placed`), and ``iou``, between the true mask and as many of the highest pixels of that map;
      only if the trigger `is_local`.
    - ``correlation`` and ``psnr``, between the revealed and the true pattern, on the pixels of
      the mask if the trigger is local, else on the whole image; only if the true one varies
      there.
    """
    scores = {}
    mask, area = mask.double(), torch.ones_like(pattern, dtype=torch.bool)
    if is_local(mask):
        scores = {
            "location_error": location_error(placed(revealed.map, mask), mask),
            "iou": mask_iou(top_pixels(revealed.map, int(mask.sum())), mask),
        }
        area = mask.bool().expand_as(pattern)
    true = pattern[area]
    if true.min() < true.max():
        shown = revealed.pattern[area]
        scores |= {"correlation": correlation(shown, true), "psnr": psnr(shown, true)}
    return scores


def _centre(mask: Tensor) -> Tensor:
    """Row and column of the centre of mass."""
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in mask.shape)
    weights = mask.double() / mask.sum()
    return torch.stack([weights.sum(1) @ rows, weights.sum(0) @ columns])
