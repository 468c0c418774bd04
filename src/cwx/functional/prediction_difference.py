"""Which channels a single prediction rests on (Dong et al., §4 and Eq 12; D9)."""

from typing import Any

import torch
from torch import Tensor, nn

from cwx.functional.class_similarity import squared_norm


def prediction_differences(whole: Tensor, without: Tensor, correlation: Tensor) -> Tensor:
    """PD_i = ‖g(φ) − g(φ without i)‖²_C of every channel i, ``[channels]`` (Eq 12).

    Args:
        whole: g(φ), probabilities ``[classes]``.
        without: g(φ without i), ``[channels, classes]``.
        correlation: C, ``[classes, classes]``.
    """
    return squared_norm(whole - without, correlation.to(whole))


@torch.no_grad()
def probabilities_without(
    network: nn.Module, layer: nn.Module, image: Tensor, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """g(φ) ``[classes]`` and g(φ without i) ``[channels, classes]``, in float64.

    g is the softmax of the network's logits, and a channel of the layer is taken away by setting
    it to 0 everywhere. Where the layer runs several times, its last run counts.

    What precedes the layer runs on the image alone, once a chunk: the layer is made to give a copy
    for each channel, and what follows runs on these. A path around the layer is broadcast; where
    that cannot be, as in a concatenation, whole copies of the image run instead. Both are exact.

    Args:
        network: in eval mode.
        layer: one of its modules, whose output is ``[n, channels, h, w]``.
        image: normalised, ``[1, C, H, W]``.
        chunk: at most so many copies at once.
    """
    silenced = _Silenced()
    hook = layer.register_forward_hook(silenced)
    try:
        whole = network(image).double().softmax(1)[0]
        silenced.last, without = silenced.runs, []
        for channels in torch.arange(silenced.channels, device=image.device).split(chunk):
            silenced.chosen = channels
            without.append(_logits(network, image, silenced).double().softmax(1))
    finally:
        hook.remove()
    return whole, torch.cat(without)


class _Silenced:
    """A forward hook that gives a copy of the layer's output without each chosen channel."""

    def __init__(self) -> None:
        self.runs, self.channels = 0, 0
        # Which run it works on, once it is known.
        self.last: int | None = None
        self.chosen = torch.empty(0, dtype=torch.long)

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        self.runs, self.channels = self.runs + 1, output.shape[1]
        if self.runs != self.last:
            return None
        copies = output.expand(len(self.chosen), *output.shape[1:]).clone()
        copies[torch.arange(len(copies), device=copies.device), self.chosen] = 0
        return copies


def _logits(network: nn.Module, image: Tensor, silenced: _Silenced) -> Tensor:
    count, silenced.runs = len(silenced.chosen), 0
    try:
        logits: Tensor = network(image)
        if len(logits) == count:
            return logits
    except RuntimeError:
        # One image and several do not go together in what follows the layer.
        pass
    silenced.runs = 0
    whole: Tensor = network(image.expand(count, *image.shape[1:]))
    return whole
