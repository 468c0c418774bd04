"""What a layer of a network gives: the representation φ of images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

# From images to a layer's output and to logits.
Maps = Callable[[Tensor], tuple[Tensor, Tensor]]


@contextmanager
def layer_maps(network: nn.Module, layer: nn.Module) -> Iterator[Maps]:
    """While open, maps images ``[n, C, H, W]`` to a layer's output and the network's logits.

    The output ``[n, channels, h, w]`` is a copy: what follows the layer may work in place. Where
    the layer runs several times, it is that of its last run.
    """
    caught: dict[str, Tensor] = {}
    hook = layer.register_forward_hook(lambda _m, _i, output: caught.update(maps=output.clone()))

    def maps(images: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(images)
        return caught.pop("maps"), logits

    try:
        yield maps
    finally:
        hook.remove()


def name_of(network: nn.Module, layer: nn.Module) -> str:
    """The name of a module of the network."""
    named: dict[str, nn.Module] = dict(network.named_modules())
    return next(name for name, module in named.items() if module is layer)
