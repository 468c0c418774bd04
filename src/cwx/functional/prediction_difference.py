"""Contributions of channels to a single prediction (Dong et al., §4 and Eq 12; D9)."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from cwx.functional.class_similarity import squared_norm

# From a function of the units' tensor [n, channels, …], which returns its replacement or None, to a
# context in which the network's passes use it.
ChangedUnits = Callable[[Callable[[Tensor], Tensor | None]], AbstractContextManager[None]]


def prediction_differences(original: Tensor, without: Tensor, correlation: Tensor) -> Tensor:
    """PD_i = ‖g(φ) − g(φ without i)‖²_C for each channel i, ``[channels]`` (Eq 12).

    Args:
        original: g(φ), probabilities ``[classes]``.
        without: g(φ without i), ``[channels, classes]``.
        correlation: C, ``[classes, classes]``.
    """
    return squared_norm(original - without, correlation.to(original))


@torch.no_grad()
def probabilities_without(
    network: nn.Module, changed_units: ChangedUnits, image: Tensor, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """g(φ) ``[classes]`` and g(φ without i) ``[channels, classes]``, in float64.

    g is the softmax of the network's logits; "without i" sets channel i to 0 at all positions. If
    the layer runs several times, only its last run is changed.

    The part of the network before the units runs on one image per chunk. The units are replaced by
    one copy per channel, and the rest of the network runs on the copies. A path
    around the layer is broadcast; if that fails, as in a concatenation, the network runs on copies
    of the whole image instead. Both are exact.

    Args:
        network: in eval mode.
        changed_units: changes the units of a layer, whose tensor is ``[n, channels, …]``.
        image: normalised, ``[1, C, H, W]``.
        chunk: the maximum number of copies at once.

    Raises:
        ValueError: the network does not reach the units.
    """
    ablation = _ChannelAblation()
    with changed_units(ablation):
        original = network(image).double().softmax(1)[0]
        if not ablation.runs:
            raise ValueError(
                "the network does not run the layer of these channels, or changes them by a "
                "function that cannot be followed: name another layer"
            )
        ablation.last_run, without = ablation.runs, []
        for channels in torch.arange(ablation.channel_count, device=image.device).split(chunk):
            ablation.channels = channels
            without.append(_logits(network, image, ablation).double().softmax(1))
    return original, torch.cat(without)


class _ChannelAblation:
    """Replaces the units of a layer by copies, each with one channel set to 0.

    Attributes:
        runs: runs of the layer so far.
        last_run: the run to change; ``None``: change none.
        channel_count: channels of the layer.
        channels: the channels to ablate, one per copy.
    """

    def __init__(self) -> None:
        self.runs, self.channel_count = 0, 0
        self.last_run: int | None = None
        self.channels = torch.empty(0, dtype=torch.long)

    def __call__(self, output: Tensor) -> Tensor | None:
        self.runs, self.channel_count = self.runs + 1, output.shape[1]
        if self.runs != self.last_run:
            return None
        copies = output.expand(len(self.channels), *output.shape[1:]).clone()
        copies[torch.arange(len(copies), device=copies.device), self.channels] = 0
        return copies


def _logits(network: nn.Module, image: Tensor, ablation: _ChannelAblation) -> Tensor:
    count, ablation.runs = len(ablation.channels), 0
    try:
        logits: Tensor = network(image)
        if len(logits) == count:
            return logits
    except RuntimeError:
        # The rest of the network cannot broadcast one image against several.
        pass
    ablation.runs = 0
    copies: Tensor = network(image.expand(count, *image.shape[1:]))
    return copies
