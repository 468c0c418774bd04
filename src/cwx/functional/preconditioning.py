"""Spatial preconditioning of the gradient of images."""

import torch
from torch import Tensor


def spectral_gain(height: int, width: int, exponent: float) -> Tensor:
    """The gain of each spatial frequency, in the order of `rfft2`.

    f^(−2 · exponent) with f in cycles per image, at least 1, divided by its root mean square over
    all frequencies: an update of white noise keeps its length. Gradient descent with this gain is
    gradient descent on the coefficients z of S = Σ f^(−exponent) z, a basis in which natural images
    have about equal coefficients for exponent 1 (Olah et al. 2017, "Feature visualization").

    Returns:
        double ``[height, width // 2 + 1]``.
    """
    vertical = torch.fft.fftfreq(height, dtype=torch.double)[:, None] * height
    horizontal = torch.fft.rfftfreq(width, dtype=torch.double)[None] * width
    gain = (vertical.square() + horizontal.square()).sqrt().clamp_min(1) ** (-2 * exponent)
    full = torch.fft.fftfreq(width, dtype=torch.double)[None] * width
    power = (vertical.square() + full.square()).sqrt().clamp_min(1) ** (-4 * exponent)
    result: Tensor = gain / power.mean().sqrt()
    return result


def precondition(gradient: Tensor, exponent: float) -> Tensor:
    """The gradient of images ``[n, C, H, W]`` with the gain of `spectral_gain`."""
    if exponent == 0:
        return gradient
    height, width = gradient.shape[-2:]
    gain = spectral_gain(height, width, exponent).to(gradient)
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(gradient) * gain, s=(height, width))
    return filtered
