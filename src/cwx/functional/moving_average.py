"""An exponential moving average of a tensor."""

import torch
from torch import Tensor, nn


class Average(nn.Module):
    """An exponential moving average of a tensor, corrected for its start (Kingma & Ba 2015).

    Args:
        tensor: its shape.
        decay: of an update, in (0, 1).
    """

    sum: Tensor
    weight: Tensor

    def __init__(self, tensor: Tensor, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("sum", torch.zeros_like(tensor.detach()))
        self.register_buffer("weight", torch.zeros((), dtype=torch.double))

    @torch.no_grad()
    def update(self, tensor: Tensor) -> None:
        self.sum.mul_(self.decay).add_(tensor, alpha=1 - self.decay)
        self.weight.mul_(self.decay).add_(1 - self.decay)

    def value(self) -> Tensor:
        """The average of all updates, on the CPU."""
        return (self.sum / self.weight.to(self.sum)).cpu()
