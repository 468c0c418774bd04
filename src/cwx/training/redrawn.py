"""A control of explanations: the same network with re-drawn weights (Adebayo et al. 2018)."""

import re
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from cwx.functional.rng import stream

# The first expert with re-drawn weights: a control for methods, not a network of the study.
REDRAWN = "redrawn"


def is_redrawn(kind: str) -> bool:
    """Whether a kind of network is an expert with re-drawn weights.

    >>> [is_redrawn(kind) for kind in ("redrawn", "redrawn/2", "redrawn/0", "expert")]
    [True, True, False, False]
    """
    return re.fullmatch(rf"{REDRAWN}(/[1-9]\d{{0,5}})?", kind) is not None


def redrawn_layers(kind: str) -> int | None:
    """The number of layers with re-drawn weights, from the output; ``None`` for all.

    >>> redrawn_layers("redrawn/2"), redrawn_layers("redrawn")
    (2, None)
    """
    _, _, layers = kind.partition("/")
    return int(layers) if layers else None


def weight_layers(network: nn.Module) -> list[nn.Module]:
    """The layers with weights of two or more axes, in the order of registration."""
    return [
        module
        for module in network.modules()
        if any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    ]


@torch.no_grad()
def redraw_weights(
    network: nn.Module, images: Tensor, seed: int, layers: int | None = None
) -> None:
    """Permute the entries of every weight with two or more axes at random, in place.

    The weights keep their distribution and lose what was learned. Running statistics of batch
    normalisation after a permuted layer are measured again on `images`, since those of training do
    not fit any more.

    Args:
        network: in eval mode; its modes are restored.
        images: normalised ``[n, C, H, W]``.
        seed: of the permutations. That of a weight does not depend on `layers`.
        layers: permute the weights of so many layers, from the output downwards: the cascade of
            Adebayo et al.; ``None`` for all.
    """
    positions = _positions(network, images[:1])
    layers_upwards = sorted(weight_layers(network), key=lambda layer: positions[layer])
    chosen = layers_upwards if layers is None else layers_upwards[-layers:]
    redrawn = {id(p) for layer in chosen for p in layer.parameters(recurse=False)}
    for index, parameter in enumerate(network.parameters()):
        if parameter.ndim > 1 and id(parameter) in redrawn:
            order = torch.randperm(parameter.numel(), generator=stream(seed, index))
            parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))
    if chosen:
        lowest = min(positions[layer] for layer in chosen)
        _measure_statistics(network, images, {m for m, at in positions.items() if at >= lowest})


def _positions(network: nn.Module, images: Tensor) -> dict[nn.Module, int]:
    """The position of every module in the order in which modules run.

    A module that does not run itself, such as a projection whose weights its parent reads, has the
    position of the module that is registered before it.
    """
    order: dict[nn.Module, int] = {}

    def start(module: nn.Module, _: object) -> None:
        order.setdefault(module, len(order))

    with ExitStack() as hooks:
        for module in network.modules():
            hooks.callback(module.register_forward_pre_hook(start).remove)
        network(images)
    positions: dict[nn.Module, int] = {}
    last = 0
    for module in network.modules():
        last = positions[module] = order.get(module, last)
    return positions


def _measure_statistics(network: nn.Module, images: Tensor, after: set[nn.Module]) -> None:
    """Measure the running statistics of the normalisation layers among `after` again."""
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.track_running_stats
        and module in after
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
