"""A network's training loss as a pure function of its parameters."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from cwx.functional.unroll import Loss, Parameters


def inner_loss(network: nn.Module, names: Sequence[str], labels: Tensor) -> Loss:
    """L(θ, S): mean cross-entropy of `network` with parameters θ on the images S (Eq 2)."""

    def loss(parameters: Parameters, images: Tensor) -> Tensor:
        weights = dict(zip(names, parameters, strict=True))
        return F.cross_entropy(functional_call(network, weights, (images,)), labels)

    return loss
