"""LC, CS1 and CS2 of the neurons of a layer (Dong et al., §2.2.1 and 2.2.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.functional.class_similarity import class_fractions, level_consistency, similarity
from cwx.functional.rng import stream
from cwx.functional.top_activations import TopActivations
from cwx.networks.unit_layers import UnitLayer

# Random orders of the classes of adversarial images.
PERMUTATIONS = 10


@dataclass(frozen=True, kw_only=True)
class LayerResponses:
    """Top images of the neurons of one layer, and their measures.

    Attributes:
        layer: its name, and where its units are read.
        real, adversarial: top images of each set; ``None`` without adversarial images.
        fractions: p, fractions of the classes among the real top images, ``[neurons, classes]``.
        responding: boolean mask ``[neurons]``, neurons with an image in each set of higher
            activation than those outside of the top images.
        values: measures by name, each ``[neurons]``: ``lc``, and with adversarial images ``cs1``
            and ``cs2``, and as controls both under permuted classes, ``cs1_permuted`` and
            ``cs2_permuted``, and both of images with noise, ``cs1_noise`` and ``cs2_noise``, NaN
            for neurons that respond to no such image.
    """

    layer: UnitLayer
    real: TopActivations
    adversarial: TopActivations | None
    fractions: Tensor
    responding: Tensor
    values: Mapping[str, Tensor]

    def highest_lc(self, count: int) -> list[int]:
        """At most `count` responding neurons of highest LC, in descending order."""
        order = self.values["lc"].argsort(descending=True, stable=True)
        return [neuron for neuron in order.tolist() if self.responding[neuron]][:count]

    def dominant_classes(self, neuron: int) -> list[int]:
        """The fewest classes that make up at least half of a neuron's real top images."""
        order = self.fractions[neuron].argsort(descending=True, stable=True)
        cumulative = self.fractions[neuron][order].cumsum(0)
        return order[: int((cumulative < 0.5 - 1e-9).sum()) + 1].tolist()


@dataclass(frozen=True, kw_only=True)
class AdversarialTop:
    """Top adversarial images of a layer's neurons.

    Attributes:
        top: indices and activations.
        noise: the same of the originals with random noise, in the order of the adversarial images;
            ``None`` without this control.
        labels, targets: classes of the originals and target classes of all adversarial images,
            ``[n]``.
    """

    top: TopActivations
    noise: TopActivations | None
    labels: Tensor
    targets: Tensor


def layer_responses(
    layer: UnitLayer,
    real: TopActivations,
    labels: Tensor,
    adversarial: AdversarialTop | None,
    correlation: Tensor,
) -> LayerResponses:
    """LC (Eq 3), and with adversarial images CS1 (Eq 4) and CS2 (Eq 5), of a layer's neurons.

    A control of each CS is its mean over `PERMUTATIONS` random orders of the adversarial images'
    classes: what a neuron has that responds to neither. Their frequencies stay. Another is CS of
    the same originals with random noise, with the labels and targets of the adversarial images:
    what a perturbation of the same norm does that is not aimed at a target.

    Args:
        layer: the layer.
        real: top real images.
        labels: classes of all real images, ``[n]``.
        adversarial: top adversarial images, if there are any.
        correlation: C, ``[classes, classes]``.
    """

    def fractions(top: TopActivations, classes: Tensor) -> Tensor:
        return class_fractions(classes[top.indices], top.responding, len(correlation))

    real_fractions = fractions(real, labels)
    values = {"lc": level_consistency(real_fractions, correlation)}
    responding = real.responding.any(0)
    if adversarial is not None:
        generator, count = stream(0), len(adversarial.labels)
        orders = [torch.randperm(count, generator=generator) for _ in range(PERMUTATIONS)]
        for name, classes in (("cs1", adversarial.labels), ("cs2", adversarial.targets)):
            values[name] = similarity(
                real_fractions, fractions(adversarial.top, classes), correlation
            )
            permuted = [
                similarity(real_fractions, fractions(adversarial.top, classes[order]), correlation)
                for order in orders
            ]
            values[f"{name}_permuted"] = torch.stack(permuted).mean(0)
            if (noise := adversarial.noise) is not None:
                of_noise = similarity(real_fractions, fractions(noise, classes), correlation)
                values[f"{name}_noise"] = of_noise.where(noise.responding.any(0), torch.nan)
        responding = responding & adversarial.top.responding.any(0)
    return LayerResponses(
        layer=layer,
        real=real,
        adversarial=adversarial.top if adversarial else None,
        fractions=real_fractions,
        responding=responding,
        values=values,
    )


def mean_of(values: Tensor) -> float | None:
    """The mean of the numbers that are not NaN; ``None`` if there are none."""
    known = values[~values.isnan()]
    return known.mean().item() if len(known) else None


def responding_values(layers: Sequence[LayerResponses]) -> dict[str, Tensor]:
    """Measures by name of the responding neurons of all layers, ``[neurons]``."""
    return {
        name: torch.cat([layer.values[name][layer.responding] for layer in layers])
        for name in layers[0].values
    }
