"""A control of explanations: the same network with re-drawn weights (Adebayo et al. 2018)."""

import torch
from torch import Tensor, nn

from cwx.functional.rng import stream


@torch.no_grad()
def redraw_weights(network: nn.Module, images: Tensor, seed: int) -> None:
    """Permute the entries of every weight with two or more axes at random, in place.

    The weights keep their distribution and lose what was learned. Running statistics of batch
    normalisation are measured again on `images`, since those of training do not fit any more.

    Args:
        network: in eval mode; its modes are restored.
        images: normalised ``[n, C, H, W]``.
        seed: of the permutations.
    """
    for index, parameter in enumerate(network.parameters()):
        if parameter.ndim > 1:
            order = torch.randperm(parameter.numel(), generator=stream(seed, index))
            parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        # The mean over all images.
        module.momentum = None
        module.train()
    network(images)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
        module.eval()
