"""A network's training loss as a pure function of its parameter vector."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_
from torch.nn import functional as F


class NetworkLoss:
    """L(θ, S): mean cross-entropy of a network with parameters θ on the images S (CWX, Eq 2).

    θ is one vector ``[P]``: all parameters, flattened, in the network's order. The network runs in
    eval mode, so dropout is off. Batch norm uses the statistics of the current batch; its running
    statistics are neither read nor written.

    Args:
        network: defines the architecture; it is modified, so pass a copy that nothing else uses.

    Attributes:
        separable: whether images do not influence each other (no batch norm), so that L of a batch
            is the mean of L over its parts.
    """

    def __init__(self, network: nn.Module) -> None:
        norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.separable = not norms
        self.network: nn.Module = replace_all_batch_norm_modules_(network)
        self.network.eval().requires_grad_(False)
        parameters = dict(network.named_parameters())
        self.names = tuple(parameters)
        self._shapes = tuple(parameter.shape for parameter in parameters.values())
        self._sizes = tuple(parameter.numel() for parameter in parameters.values())

    def __call__(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """L for θ ``[P]``, `images` ``[n, C, H, W]`` and `labels` ``[n]``."""
        return F.cross_entropy(self.logits(theta, images), labels)

    def logits(self, theta: Tensor, images: Tensor) -> Tensor:
        """The logits ``[n, classes]`` for θ ``[P]`` and `images` ``[n, C, H, W]``."""
        parts = zip(self.names, theta.split(self._sizes), self._shapes, strict=True)
        parameters = {name: part.view(shape) for name, part, shape in parts}
        logits: Tensor = functional_call(self.network, parameters, (images,))
        return logits

    def vector(self, state: Mapping[str, Tensor]) -> Tensor:
        """θ from a state by parameter name; entries that are not parameters are ignored."""
        return torch.cat([state[name].reshape(-1) for name in self.names])
