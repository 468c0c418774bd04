"""Weights that have diverged."""

from collections.abc import Mapping

from torch import Tensor


def first_non_finite(state: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with an infinite or NaN weight; ``None`` if all are finite."""
    return next((name for name, tensor in state.items() if not tensor.isfinite().all()), None)
