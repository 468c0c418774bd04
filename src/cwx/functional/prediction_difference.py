"""Influence of channels on a prediction (Dong et al., §4 and Eq 12)."""

from torch import Tensor

from cwx.functional.class_similarity import squared_norm


def prediction_differences(original: Tensor, without: Tensor, correlation: Tensor) -> Tensor:
    """PD_i = ‖g(φ) − g(φ without i)‖²_C for each channel i, ``[…, channels]`` (Eq 12).

    Args:
        original: g(φ), probabilities ``[…, classes]``.
        without: g(φ without i), ``[…, channels, classes]``.
        correlation: C, ``[classes, classes]``.
    """
    return squared_norm(original.unsqueeze(-2) - without, correlation.to(original))
