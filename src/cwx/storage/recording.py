"""Selecting the training states to store, and their precision."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, init=False)
class Recording:
    """Selects the states of a training to store, and how to store them.

    Training never reads them back: this setting does not change the training.

    Args:
        epochs: store θ_0 … θ_epochs and the last state θ_T; ``None`` stores all.
        dtype: of floating-point parameters on disk: float32, bfloat16 (relative error up to 2⁻⁸)
            or float16 (up to 2⁻¹¹, for magnitudes from 6e-5 to 65504). The error is relative to
            θ_k, not to the difference θ_{k+N} − θ_k, which is smaller. Buffers keep their dtype.
        images: the number of test images, evenly spaced, for the test accuracy stored with each
            state; ``None`` for all.

    Raises:
        ValueError: `epochs` is negative, `dtype` is not one of these, or `images` is below 1.
    """

    epochs: int | None
    dtype: torch.dtype
    images: int | None

    def __init__(
        self,
        *,
        epochs: Annotated[int, ">= 0"] | None = None,
        dtype: torch.dtype | str = torch.float32,
        images: Annotated[int, ">= 1"] | None = None,
    ) -> None:
        if images is not None and images < 1:
            raise ValueError(
                f"recipe.recording.images is {images}: give 1 or more, or null for all"
            )
        if epochs is not None and epochs < 0:
            raise ValueError(
                f"recipe.recording.epochs is {epochs}: give 0 or more, or null to record all"
            )
        torch_dtype = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
        if torch_dtype not in _DTYPES.values():
            raise ValueError(f"recipe.recording.dtype is {dtype}: give one of {', '.join(_DTYPES)}")
        object.__setattr__(self, "epochs", epochs)
        object.__setattr__(self, "dtype", torch_dtype)
        object.__setattr__(self, "images", images)

    def recorded_epochs(self, last: int) -> tuple[int, ...]:
        """The epochs to store of a training of `last` epochs, in ascending order."""
        return tuple(
            epoch
            for epoch in range(last + 1)
            if self.epochs is None or epoch <= self.epochs or epoch == last
        )

    def state(self, network: nn.Module) -> dict[str, Tensor]:
        """The state of `network`, with parameters in the dtype of this recording.

        Raises:
            ValueError: a finite weight overflows the dtype.
        """
        parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
        return {
            name: self._convert(name, tensor) if name in parameters else tensor
            for name, tensor in network.state_dict().items()
        }

    def _convert(self, name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.dtype == self.dtype:
            return tensor
        converted = tensor.to(self.dtype)
        if (converted.isinf() & tensor.isfinite()).any():
            raise ValueError(
                f"{name} has a weight of {tensor.abs().max():.3g}, too large for {self.dtype}: "
                "set recipe.recording.dtype to bfloat16 or float32"
            )
        return converted
