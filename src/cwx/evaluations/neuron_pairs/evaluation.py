"""Pairs of neurons that people compare: whether they agree with LC (Dong et al., App. B)."""

import hashlib
import io
import logging
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from torch import nn

from cwx.data.taxonomy import Taxonomy
from cwx.evaluations.neuron_pairs.pictures import IMAGES, Neuron, draw_pictures
from cwx.evaluations.neuron_pairs.sampling import draw_pairs
from cwx.evaluations.neurons.network_audit import NetworkAudit
from cwx.evaluations.neurons.regions import Regions
from cwx.evaluations.neurons.top_images import Activation, Audit, normalized_batches, top_count
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.explanations.drawing import Pixels
from cwx.functional.class_similarity import class_fractions, level_consistency
from cwx.functional.top_activations import TopActivations
from cwx.storage.neuron_pairs import Pair, picture_name
from cwx.training.build import build_network
from cwx.training.plan import Plan
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

SETTING = "evaluation.neuron_pairs"


class NeuronPairs:
    """Random pairs of neurons, for a study in which people judge which has the higher level.

    A neuron and its LC are those of `cwx.evaluations.neurons`. Volunteers see its nine test images
    of highest activation, each with the region to which it responds, and no LC, class or layer.
    Neurons that fire on fewer than nine images above all others are left out. The run's page links
    to ``neuron_pairs.html``, which asks the question of Figure 11 and saves the answers to a file;
    ``cwx agreement`` compares them with LC.

    The table ``neuron_pairs`` has the pairs, and ``neuron_pairs_neurons`` LC and simple statistics
    of their neurons, numbered in random order: the fraction of the most frequent class and the
    negative entropy of p, and the position of the layer. ``neuron_pairs/<number>.png`` are the
    pictures of the neurons.

    Args:
        network: a kind of network or the name of an evaluation network, whose first is shown.
        layers: names; null for all convolutions and, on tokens, MLPs and the residual stream.
        before_nonlinearity: see `cwx.evaluations.neurons`.
        fraction: top images that LC is of, as a fraction of the test images, in (0, 1).
        activation: from a layer's output to an activation per channel.
        taxonomy: gives distances between classes.
        sigma: σ of the correlation of classes (Eq 2).
        pairs: number of pairs, without repetitions.
        strata: 1 draws pairs with equal probability, as the paper does; more draw equally many
            from each of so many quantiles of the difference of LC.
        repeated: fraction of the pairs that are shown a second time, with sides swapped.
        occluder: side in pixels of the squares for discrepancy maps.
        stride: pixels from one square to the next.
        threshold: pixels above this fraction of the map's maximum are highlighted, in (0, 1].
        seed: of the pairs.

    Raises:
        ValueError: a number is out of its range.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        network: str,
        layers: Annotated[Sequence[str], "distinct"] | None,
        before_nonlinearity: bool,
        fraction: Annotated[float, "> 0, < 1"],
        activation: Activation,
        taxonomy: Taxonomy,
        sigma: Annotated[float, ">= 0.001, <= 1000"],
        pairs: Annotated[int, ">= 1, <= 20000"],
        strata: Annotated[int, ">= 1, <= 10"],
        repeated: Annotated[float, ">= 0, <= 1"],
        occluder: Annotated[int, ">= 1"],
        stride: Annotated[int, ">= 1"],
        threshold: Annotated[float, "> 0, <= 1"],
        seed: Annotated[int, ">= 0, < 2**63"],
    ) -> None:
        for name, value in (("pairs", pairs), ("strata", strata)):
            if value < 1:
                raise ValueError(f"{SETTING}.{name} is {value}: give 1 or more")
        if strata > pairs:
            raise ValueError(
                f"{SETTING}.strata is {strata}, more than the {pairs} pairs: give at most {pairs}"
            )
        if not 0 <= repeated <= 1:
            raise ValueError(f"{SETTING}.repeated is {repeated}: give a fraction from 0 to 1")
        if not 0 < threshold <= 1:
            raise ValueError(
                f"{SETTING}.threshold is {threshold}: give a fraction above 0, at most 1, of the "
                "highest of a discrepancy map"
            )
        self.network = network
        self.audit = NetworkAudit(
            setting=SETTING,
            networks=None,
            layers=layers,
            before_nonlinearity=before_nonlinearity,
            fraction=fraction,
            activation=activation,
            taxonomy=taxonomy,
            sigma=sigma,
        )
        self.pairs, self.strata, self.repeated, self.seed = pairs, strata, repeated, seed
        self.regions = Regions(occluder=occluder, stride=stride, threshold=threshold)

    def check(self, plan: Plan) -> None:
        self.audit.correlation(plan.data.splits)
        if plan.kinds and self.network not in plan.kinds:
            raise ValueError(
                f"{SETTING}.network is {self.network!r}, and this study has no such network: give "
                f"one of {', '.join(plan.kinds)}"
            )
        try:
            self.regions.occluders(plan.data.image_shape)
        except ValueError as error:
            raise ValueError(f"{SETTING}.occluder and {SETTING}.stride: {error}") from error
        count = len(plan.data.splits.test)
        if count <= IMAGES:
            raise ValueError(
                f"{SETTING} shows {IMAGES} test images of each neuron that excite it more than "
                f"others, and there are {count}: give more test images, or leave neuron_pairs out "
                "of evaluation=[…]"
            )
        if factory := plan.networks.get(self.network, plan.networks.get("network")):
            self.audit.unit_layers(build_network(factory, plan.data, seed=0), plan.data.image_shape)

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        network = subject.first_network(self.network)
        # There are forward passes only; channels_last halves their time on a CPU.
        network.to(memory_format=torch.channels_last)
        log.info("finding the top images of the neurons of %s", self.network)
        neurons = self._neurons(subject, network)
        pairs = self._pairs(neurons)
        # Only those in pairs, with new numbers that say nothing about layers.
        shown = sorted({neuron for pair in pairs for neuron in (pair.left, pair.right)})
        order = np.random.default_rng([self.seed, 1]).permutation(len(shown))
        numbers = {shown[old]: new for new, old in enumerate(order.tolist(), 1)}
        neurons = [neurons[neuron - 1] for neuron in numbers]
        pairs = [
            Pair(number=p.number, left=numbers[p.left], right=numbers[p.right], repeats=p.repeats)
            for p in pairs
        ]
        images = len({image for neuron in neurons for image in neuron.images})
        log.info("highlighting regions in %d images of %d neurons", images, len(neurons))
        pictures = draw_pictures(neurons, subject, network, self.audit.activation, self.regions)
        return Outcome(
            tables={
                "neuron_pairs": [_pair_row(pair, neurons) for pair in pairs],
                "neuron_pairs_neurons": [
                    self._neuron_row(number, neuron, picture, subject.data.classes)
                    for number, (neuron, picture) in enumerate(
                        zip(neurons, pictures, strict=True), 1
                    )
                ],
            },
            files={
                picture_name(number): _png(picture) for number, picture in enumerate(pictures, 1)
            },
        )

    def _pairs(self, neurons: Sequence[Neuron]) -> list[Pair]:
        try:
            return draw_pairs(
                [neuron.lc for neuron in neurons],
                count=self.pairs,
                strata=self.strata,
                repeated=self.repeated,
                seed=self.seed,
            )
        except ValueError as error:
            raise ValueError(f"{SETTING}.pairs: {error}") from error

    def _neurons(self, subject: Subject, network: nn.Module) -> list[Neuron]:
        """All neurons that fire on `IMAGES` images more than on others.

        Raises:
            ValueError: there are fewer than two.
        """
        data, test = subject.data, subject.data.splits.test
        layers = self.audit.unit_layers(network, data.image_shape)
        of_lc = top_count(self.audit.fraction, len(test))
        audit = Audit(
            layers=layers,
            activation=self.audit.activation,
            fraction=max(of_lc, IMAGES) / len(test),
        )
        batches = normalized_batches(
            [test.images],
            data.normalization,
            size=data.batch_size,
            device=subject.device,
            ranks=subject.ranks,
        )
        tops = audit(network, batches, len(test), subject.ranks)
        class_correlation = self.audit.correlation(data.splits)
        neurons, units = [], 0
        for depth, layer in enumerate(layers, 1):
            top = tops[layer.name]
            units += top.values.shape[1]
            highest = _highest(top, of_lc)
            fractions = class_fractions(
                test.labels[highest.indices], highest.responding, len(data.classes)
            )
            levels = level_consistency(fractions, class_correlation)
            for unit in top.responding[:IMAGES].all(0).nonzero()[:, 0].tolist():
                neurons.append(
                    Neuron(
                        layer=layer,
                        unit=unit,
                        depth=depth,
                        images=top.indices[:IMAGES, unit].tolist(),
                        fractions=fractions[unit],
                        lc=levels[unit].item(),
                    )
                )
        log.info("%d of %d neurons fire on %d images above all others", len(neurons), units, IMAGES)
        if len(neurons) < 2:
            raise ValueError(
                f"{SETTING} needs two neurons that fire on {IMAGES} test images above all others, "
                f"and {len(neurons)} of {units} neurons of {self.network} do: give more test "
                f"images, other {SETTING}.layers, or leave neuron_pairs out of evaluation=[…]"
            )
        return neurons

    def _neuron_row(
        self, number: int, neuron: Neuron, picture: Pixels, classes: Sequence[str]
    ) -> Row:
        return {
            "neuron": number,
            "network": self.network,
            "layer": neuron.layer.name,
            "unit": neuron.unit,
            "lc": neuron.lc,
            "largest_fraction": neuron.fractions.max().item(),
            "negative_entropy": torch.special.entr(neuron.fractions).sum().neg().item(),
            "depth": neuron.depth,
            "class": classes[int(neuron.fractions.argmax())],
            "picture_sha256": hashlib.sha256(picture.tobytes()).hexdigest(),
        }


def _highest(top: TopActivations, count: int) -> TopActivations:
    """The first `count` images of each neuron."""
    if count >= len(top.values):
        return top
    return TopActivations(top.values[:count], top.indices[:count], top.values[count])


def _pair_row(pair: Pair, neurons: Sequence[Neuron]) -> Row:
    return {
        "pair": pair.number,
        "left": pair.left,
        "right": pair.right,
        "repeats": "" if pair.repeats is None else pair.repeats,
        "left_lc": neurons[pair.left - 1].lc,
        "right_lc": neurons[pair.right - 1].lc,
    }


def _png(picture: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()
