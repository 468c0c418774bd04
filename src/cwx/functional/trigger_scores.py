"""The trigger that explanations reveal, and its similarity to the true trigger of a backdoor.

Images are float tensors ``[n, C, H, W]`` on any affine scale: the scores do not change if all
intensities are multiplied by a positive number and shifted. A true trigger is a mask ``[H, W]``
of ones and zeros and a pattern ``[C, H, W]``, see `cwx.functional.backdoor.Trigger`.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# In dB; only a match with nothing but rounding errors reaches it.
PSNR_CEILING = 100.0


class TriggerEstimate(NamedTuple):
    """The revealed trigger of a class.

    Attributes:
        map: importance of each pixel, ``[H, W]``, ≥ 0; see `revealed_map`.
        deviations: of the class's images from the mean of the others, ``[n, C, H, W]``; or the
            single pattern that is revealed, ``[1, C, H, W]``.
    """

    map: Tensor
    deviations: Tensor

    @property
    def pattern(self) -> Tensor:
        """The mean of the deviations, ``[C, H, W]``; of images, their `revealed_pattern`."""
        return self.deviations.mean(0)


def estimate_trigger(own: Tensor, others: Tensor) -> TriggerEstimate:
    """The difference of the images `own` of a class from `others`."""
    return TriggerEstimate(revealed_map(own, others), _deviations(own, others))


def revealed_pattern(own: Tensor, others: Tensor) -> Tensor:
    """mean(own) − mean(others), ``[C, H, W]`` in float64."""
    return own.double().mean(0) - others.double().mean(0)


def revealed_map(own: Tensor, others: Tensor) -> Tensor:
    """The standardised deviation of a class from `others` at each pixel, ``[H, W]``, ≥ 0.

        mean over channels and images of |own − mean(others)| / (σ + σ̄)

    σ is the standard deviation of a pixel over `others`, σ̄ its mean over all pixels. Without σ̄,
    nearly constant pixels would dominate. If σ is 0 everywhere, the denominator is 1.

    The absolute value is taken of each image, not of the mean: to a network, a grid is much the
    same as its negative, and where the images of a class show both, their mean shows neither.
    """
    std = others.double().std(0, correction=0)
    mean_std = std.mean()
    scale = std + mean_std if mean_std > 0 else torch.ones_like(std)
    return (_deviations(own, others).abs().mean(0) / scale).mean(0)


def principal_direction(deviations: Tensor) -> Tensor:
    """The direction of greatest second moment of vectors ``[n, d]``: ``[d]``, of length 1 (or 0).

    It does not depend on the sign of any vector, and its own sign is arbitrary.
    """
    deviations = deviations.double()
    if not deviations.any():
        return deviations[0]
    direction: Tensor = torch.linalg.svd(deviations, full_matrices=False).Vh[0]
    return direction


def top_pixels(values: Tensor, count: int) -> Tensor:
    """The mask ``[H, W]`` of the `count` highest `values`; entries in 0-1 with the sum `count`.

    Pixels that tie at the threshold get equal fractions, so that a constant map gives a constant
    mask.
    """
    threshold = values.flatten().sort(descending=True).values[count - 1]
    above, tied = values > threshold, values == threshold
    fraction = (count - above.sum()) / tied.sum()
    return above.double() + tied * fraction


def mask_at_maximum(values: Tensor, mask: Tensor) -> Tensor:
    """The true mask ``[H, W]``, translated to the maximum of the mean of `values` under it.

    If several positions tie, the result is the mean of the masks at all of them: entries in 0-1
    with the sum of the mask.
    """
    rows, columns = (mask.any(axis).nonzero() for axis in (1, 0))
    kernel = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].double()[None, None]
    sums = F.conv2d(values.double()[None, None], kernel)
    maxima = torch.isclose(sums, sums.max(), rtol=1e-9, atol=0).double()
    return F.conv_transpose2d(maxima / maxima.sum(), kernel)[0, 0]


def mask_iou(first: Tensor, second: Tensor) -> float:
    """Intersection over union of two masks ``[H, W]`` in 0-1: Σ min / Σ max, in 0-1."""
    return (torch.minimum(first, second).sum() / torch.maximum(first, second).sum()).item()


def location_error(first: Tensor, second: Tensor) -> float:
    """Distance in pixels of the centres of mass of two masks ``[H, W]``, 0 to the diagonal."""
    return torch.dist(_centre(first), _centre(second)).item()


def correlation(revealed: Tensor, true: Tensor) -> float:
    """Pearson's correlation of two tensors of equal shape, in −1 to 1; 0 if either is constant."""
    first, second = (
        torch.nn.functional.normalize((t - t.mean()).flatten(), dim=0)
        for t in (revealed.double(), true.double())
    )
    return (first @ second).clamp(-1, 1).item()


def affine_match(revealed: Tensor, true: Tensor) -> Tensor:
    """a · `revealed` + b, with a ≥ 0 and b of least squared error to `true`."""
    revealed, true = revealed.double(), true.double()
    centred = revealed - revealed.mean()
    variance = centred.square().sum()
    gain = (centred * true).sum().clamp_min(0) / variance if variance > 0 else variance
    return gain * centred + true.mean()


def psnr(revealed: Tensor, true: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, after `affine_match` of `revealed` to `true`.

        10 log₁₀ (peak² / mean squared error),  peak = max(true) − min(true)

    Because the match is optimal, for a given `true` this depends on the correlation ρ only, via
    1 − max(ρ, 0)². The minimum is 10 log₁₀ 4 ≈ 6.02, the worst case of a flat image; the maximum,
    for a perfect match, is `PSNR_CEILING`. `true` must not be constant.
    """
    peak = true.double().max() - true.double().min()
    error = (affine_match(revealed, true) - true).square().mean()
    return (10 * (peak.square() / error).log10()).clamp_max(PSNR_CEILING).item()


def is_local(mask: Tensor) -> bool:
    """Whether a trigger is local: the bounding box of its mask is at most half of the image.

    The box counts instead of the mask, because stripes may cover half of the pixels only and still
    extend over the whole image.
    """
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return 2 * int(box) <= mask.numel()


def trigger_scores(revealed: TriggerEstimate, *, mask: Tensor, pattern: Tensor) -> dict[str, float]:
    """The similarity of the revealed trigger of a class and the true one, by name.

    - ``location_error``: of the true mask and its translation to the maximum of the revealed map
      (`mask_at_maximum`); ``iou``: of the true mask and as many of the map's highest pixels. Both
      only if the trigger `is_local`.
    - ``correlation`` and ``psnr``: of the revealed and the true pattern, on the pixels of the mask
      if the trigger is local, otherwise on the whole image; only if the true pattern varies there.
    - ``either_sign_correlation``: |ρ| of the true pattern and the `principal_direction` of the
      deviations of the class's images on the pixels of the mask; for local triggers alone. Not 0
      by chance: compare it with that of other classes.
    """
    scores = {}
    mask, area = mask.double(), torch.ones_like(pattern, dtype=torch.bool)
    if is_local(mask):
        scores = {
            "location_error": location_error(mask_at_maximum(revealed.map, mask), mask),
            "iou": mask_iou(top_pixels(revealed.map, int(mask.sum())), mask),
        }
        area = mask.bool().expand_as(pattern)
    true = pattern[area]
    if true.min() < true.max():
        pattern_values = revealed.pattern[area]
        scores["correlation"] = correlation(pattern_values, true)
        scores["psnr"] = psnr(pattern_values, true)
        if is_local(mask):
            deviations = revealed.deviations[:, area].double()
            direction = principal_direction(deviations - deviations.mean(1, keepdim=True))
            scores["either_sign_correlation"] = abs(correlation(direction, true))
    return scores


def _deviations(own: Tensor, others: Tensor) -> Tensor:
    return own.double() - others.double().mean(0)


def _centre(mask: Tensor) -> Tensor:
    """Row and column of the centre of mass."""
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in mask.shape)
    weights = mask.double() / mask.sum()
    return torch.stack([weights.sum(1) @ rows, weights.sum(0) @ columns])
