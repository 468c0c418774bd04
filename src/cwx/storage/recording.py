"""Which states of a training are kept, and in which precision."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, init=False)
class Recording:
    """Which states of a training are kept, and how.

    Training never reads them back: what is left out or narrowed here does not alter it.

    Args:
        epochs: keeps θ_0 … θ_epochs and the last state, θ_T; ``None`` keeps all.
        dtype: of floating parameters on disk: float32, bfloat16 (a relative error up to 2⁻⁸) or
            float16 (up to 2⁻¹¹, for magnitudes from 6e-5 to 65504). The error is one of θ_k, not
            of the way θ_{k+N} − θ_k, which is shorter. Buffers stay as they are.
        images: how many test images, spread over all, the accuracy that is noted with each state
            is measured on; ``None`` for all.

    Raises:
        ValueError: `epochs` is negative, `dtype` is none of these or `images` is below 1.
    """

    epochs: int | None
    dtype: torch.dtype
    images: int | None

    def __init__(
        self,
        *,
        epochs: int | None = None,
        dtype: torch.dtype | str = torch.float32,
        images: int | None = None,
    ) -> None:
        if images is not None and images < 1:
            raise ValueError(
                f"recipe.recording.images is {images}: give 1 or more, or null for all"
            )
        if epochs is not None and epochs < 0:
            raise ValueError(
                f"recipe.recording.epochs is {epochs}: give 0 or more, or null to record all"
            )
        chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
        if chosen not in _DTYPES.values():
            raise ValueError(f"recipe.recording.dtype is {dtype}: give one of {', '.join(_DTYPES)}")
        object.__setattr__(self, "epochs", epochs)
        object.__setattr__(self, "dtype", chosen)
        object.__setattr__(self, "images", images)

    def kept(self, last: int) -> tuple[int, ...]:
        """The epochs kept of a training of `last` epochs, in order."""
        return tuple(
            epoch
            for epoch in range(last + 1)
            if self.epochs is None or epoch <= self.epochs or epoch == last
        )

    def state(self, network: nn.Module) -> dict[str, Tensor]:
        """The state of `network` as it is stored.

        Raises:
            ValueError: a finite weight is too large for the dtype.
        """
        parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
        return {
            name: self._narrowed(name, tensor) if name in parameters else tensor
            for name, tensor in network.state_dict().items()
        }

    def _narrowed(self, name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.dtype == self.dtype:
            return tensor
        narrowed = tensor.to(self.dtype)
        if (narrowed.isinf() & tensor.isfinite()).any():
            raise ValueError(
                f"{name} has a weight of {tensor.abs().max():.3g}, too large for {self.dtype}: "
                "set recipe.recording.dtype to bfloat16 or float32"
            )
        return narrowed
