"""What the neurons of a layer respond to (Dong et al., §2.2.1 and 2.2.2; D4, D5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.functional.class_similarity import class_shares, level_consistency, similarity
from cwx.functional.top_activations import Top


@dataclass(frozen=True, kw_only=True)
class Responses:
    """What one layer's neurons respond to.

    Attributes:
        layer: its name.
        real, adversarial: their top images of each set; ``None`` if there are no adversarial ones.
        fractions: p, of the classes among the real ones, ``[neurons, classes]``.
        responding: boolean mask ``[neurons]``, those that respond to some images of each set more than to
            others.
        values: their measures by name, each ``[neurons]``: ``lc``, and with adversarial images
            ``cs1`` and ``cs2``.
    """

    layer: str
    real: Top
    adversarial: Top | None
    fractions: Tensor
    responding: Tensor
    values: Mapping[str, Tensor]

    def highest(self, count: int) -> list[int]:
        """At most `count` neurons, those of the highest LC that respond, the highest first."""
        order = self.values["lc"].argsort(descending=True, stable=True)
        return [neuron for neuron in order.tolist() if self.responding[neuron]][:count]

    def dominating(self, neuron: int) -> list[int]:
        """The fewest classes that make up half of a neuron's real top images or more."""
        order = self.fractions[neuron].argsort(descending=True, stable=True)
        held = self.fractions[neuron][order].cumsum(0)
        return order[: int((held < 0.5 - 1e-9).sum()) + 1].tolist()


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """The top adversarial images of a layer's neurons, and of all adversarial images the classes.

    Attributes:
        labels, targets: of the originals, and those that they were made for, ``[n]``.
    """

    top: Top
    labels: Tensor
    targets: Tensor


def responses(
    layer: str, real: Top, labels: Tensor, attacked: Attacked | None, correlation: Tensor
) -> Responses:
    """LC of Eq 3, and CS1 and CS2 of Eq 4 and 5 if there are adversarial images.

    Args:
        labels: of the real images, ``[n]``.
        correlation: C, ``[classes, classes]``.
    """

    def fractions(top: Top, classes: Tensor) -> Tensor:
        return class_shares(classes[top.indices], top.responding, len(correlation))

    own = fractions(real, labels)
    values = {"lc": level_consistency(own, correlation)}
    responding = real.responding.any(0)
    if attacked is not None:
        for name, classes in (("cs1", attacked.labels), ("cs2", attacked.targets)):
            values[name] = similarity(own, fractions(attacked.top, classes), correlation)
        responding = responding & attacked.top.responding.any(0)
    return Responses(
        layer=layer,
        real=real,
        adversarial=attacked.top if attacked else None,
        fractions=own,
        responding=responding,
        values=values,
    )


def together(found: Sequence[Responses]) -> dict[str, Tensor]:
    """The values of the responding neurons of all layers, by name."""
    return {
        name: torch.cat([layer.values[name][layer.responding] for layer in found])
        for name in found[0].values
    }
