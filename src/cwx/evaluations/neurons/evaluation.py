"""Top real and adversarial images of neurons, with LC, CS1 and CS2 (Dong et al., §2.2; D2-D5)."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.data.splits import Splits
from cwx.data.streamed_images import Images
from cwx.data.taxonomy import Taxonomy
from cwx.evaluations.neurons.figures import Sheet, similarity_curve
from cwx.evaluations.neurons.noise import noise_images
from cwx.evaluations.neurons.responses import (
    AdversarialTop,
    LayerResponses,
    layer_responses,
    mean_of,
    responding_values,
)
from cwx.evaluations.neurons.tables import closest_classes, curve_rows, layer_row, top_rows
from cwx.evaluations.neurons.top_images import (
    Activation,
    Audit,
    audit_layers,
    normalized_batches,
)
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.functional.class_similarity import correlation
from cwx.functional.top_activations import TopActivations
from cwx.networks.unit_layers import UnitLayer
from cwx.training.build import build_network
from cwx.training.plan import Plan
from cwx.training.subject import KINDS, Subject

log = logging.getLogger(__name__)

SETTING = "evaluation.neurons"
# The experts before and after fine-tuning.
EXPERTS = ("expert", "fine-tuned")


class Neurons:
    """Semantic level and consistency (LC) of neurons, and CS of their real and adversarial images.

    A neuron is a channel of a layer, read after the normalisation, the residual addition and the
    non-linearity that follow it (`cwx.networks.unit_layers`). LC is the level and consistency of
    the classes of its top images, CS1 their similarity to the classes of the originals of its top
    adversarial images, and CS2 their similarity to the target classes of these. Images count whose
    activation is above that of every other image: images that a neuron does not fire on are all
    alike to it. Neurons without such images are left out of all metrics but the table's column
    ``inactive``.

    The metrics ``neurons/<network>/lc``, ``…/cs1`` and ``…/cs2``, and their controls under permuted
    classes ``…/cs1_permuted`` and ``…/cs2_permuted`` and with noise instead of the attack,
    ``…/cs1_noise`` and ``…/cs2_noise``, are means over the neurons of all layers,
    ``neurons/<network>/high/…`` over those of highest LC. The table ``neurons_layers`` has them by
    layer, ``neurons_curve`` in equal bins of LC (std with ddof 0, and the standard error of the
    mean), and ``neurons_top`` the neurons of highest LC of the sheet's layer; ``neurons_classes``
    the pairs of classes of highest correlation, without which LC is the chance that two top images
    are of one class. The figure ``neurons_curve`` shows CS1 and CS2 against LC (Figures 4 and 8),
    ``neurons_sheet_<network>`` top images (Figures 2 and 7). Without adversarial images there is no
    CS and no curve.

    Args:
        networks: kinds of networks and names of evaluation networks, the first network of each;
            null for ``expert`` and ``fine-tuned``, as far as the study has them.
        layers: names; null for all convolutions and, on tokens, MLPs and the residual stream.
        before_nonlinearity: read the neurons after the normalisation of their layer, before
            additions and non-linearities.
        fraction: top images of a neuron as a fraction of the images of each set, in (0, 1).
        activation: from a layer's output to an activation per channel.
        taxonomy: gives distances between classes.
        sigma: σ of the correlation of classes (Eq 2).
        high: fraction of neurons of highest LC, in (0, 1).
        bins: number of equal bins of LC between 0 and 1.
        noise: measure CS of images with random noise as well, of the same L2 norm as each
            adversarial perturbation.
        sheet: of top images; null for none.

    Raises:
        ValueError: a number is out of its range, or `networks` is empty.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        networks: Sequence[str] | None,
        layers: Annotated[Sequence[str], "distinct"] | None,
        before_nonlinearity: bool,
        fraction: Annotated[float, "> 0, < 1"],
        activation: Activation,
        taxonomy: Taxonomy,
        sigma: Annotated[float, ">= 0.001, <= 1000"],
        high: Annotated[float, "> 0, < 1"],
        bins: Annotated[int, ">= 1, <= 1000"],
        noise: bool,
        sheet: Sheet | None,
    ) -> None:
        for name, value in (("fraction", fraction), ("high", high)):
            if not 0 < value < 1:
                raise ValueError(f"{SETTING}.{name} is {value}: give a fraction between 0 and 1")
        if bins < 1:
            raise ValueError(f"{SETTING}.bins is {bins}: give 1 or more")
        if networks is not None and not networks:
            raise ValueError(
                f"{SETTING}.networks is empty: name a kind of network such as expert, or give null"
            )
        self.networks, self.layers, self.fraction = networks, layers, fraction
        self.before_nonlinearity = before_nonlinearity
        self.activation, self.taxonomy, self.sigma = activation, taxonomy, sigma
        self.high, self.bins, self.noise, self.sheet = high, bins, noise, sheet

    def check(self, plan: Plan) -> None:
        self._correlation(plan.data.splits)
        evaluation_networks = sorted(plan.networks.keys() - {"network"})
        for name in self.networks or EXPERTS[:1]:
            if name not in KINDS and name not in evaluation_networks:
                choices = [*sorted(KINDS), *evaluation_networks]
                raise ValueError(
                    f"{SETTING}.networks has {name!r}, which is no kind of network and no "
                    f"evaluation network: choose some of {', '.join(choices)}, or give null"
                )
            if factory := plan.networks.get(name if name in evaluation_networks else "network"):
                self._layers(build_network(factory, plan.data, seed=0), plan.data.image_shape)

    def _correlation(self, splits: Splits) -> Tensor:
        distances = self.taxonomy.distances(splits, f"{SETTING}.taxonomy")
        try:
            return correlation(distances, self.sigma)
        except ValueError as error:
            raise ValueError(f"{SETTING}.sigma: {error}") from error

    def _layers(self, network: nn.Module, image_shape: tuple[int, int, int]) -> list[UnitLayer]:
        layers = audit_layers(
            network,
            image_shape,
            self.layers,
            f"{SETTING}.layers",
            before_nonlinearity=self.before_nonlinearity,
        )
        if self.sheet:
            self.sheet.check(image_shape, [layer.name for layer in layers], f"{SETTING}.sheet")
        return layers

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        class_correlation = self._correlation(subject.data.splits)
        responses: dict[str, list[LayerResponses]] = {}
        highest: list[Row] = []
        figures: dict[str, Figure] = {}
        for name in self.networks or _experts(subject):
            log.info("finding the top images of the neurons of %s", name)
            network = subject.first_network(name).to(subject.device)
            # There are forward passes only; channels_last halves their time on a CPU.
            network.to(memory_format=torch.channels_last)
            responses[name] = self._responses(subject, network, class_correlation)
            if self.sheet:
                layer = self.sheet.select_layer(responses[name])
                if rows := top_rows(name, layer, self.sheet.neurons, subject.data.classes):
                    highest += rows
                    figure = self.sheet.draw(layer, subject, network, self.activation)
                    figures[f"neurons_sheet_{name}"] = figure
        values = {name: responding_values(layers) for name, layers in responses.items()}
        curve = curve_rows(values, self.bins)
        if curve and subject.adversarial is not None:
            figures["neurons_curve"] = similarity_curve(curve)
        tables = {
            "neurons_classes": closest_classes(class_correlation, subject.data.classes),
            "neurons_layers": [
                layer_row(name, layer) for name, layers in responses.items() for layer in layers
            ],
            "neurons_curve": curve,
            "neurons_top": highest,
        }
        return Outcome(
            metrics={
                f"neurons/{name}/{metric}": value
                for name, of_network in values.items()
                for metric, value in self._means(of_network).items()
            },
            tables={name: rows for name, rows in tables.items() if rows},
            figures=figures,
        )

    def _responses(
        self, subject: Subject, network: nn.Module, class_correlation: Tensor
    ) -> list[LayerResponses]:
        test, adversarial = subject.data.splits.test, subject.adversarial
        layers = self._layers(network, subject.data.image_shape)
        audit = Audit(layers=layers, activation=self.activation, fraction=self.fraction)

        def top_images(parts: Iterable[Images], count: int) -> Mapping[str, TopActivations]:
            data, device = subject.data, subject.device
            batches = normalized_batches(
                parts, data.normalization, size=data.batch_size, device=device
            )
            return audit(network, batches, count, subject.ranks)

        real = top_images([test.images], len(test))
        attacked: dict[str, AdversarialTop] = {}
        if adversarial is not None:
            images, count = (part for _, part in adversarial.batches()), len(adversarial)
            attack = top_images(images, count)
            noise = top_images(noise_images(adversarial, test), count) if self.noise else {}
            attacked = {
                name: AdversarialTop(
                    top=top,
                    noise=noise.get(name),
                    labels=adversarial.labels,
                    targets=adversarial.targets,
                )
                for name, top in attack.items()
            }
        return [
            layer_responses(
                layer,
                real[layer.name],
                test.labels,
                attacked.get(layer.name),
                class_correlation,
            )
            for layer in layers
        ]

    def _means(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over all neurons, and over those of highest LC."""
        level = values["lc"]
        if not len(level):
            return {}
        threshold = level.topk(max(1, round(self.high * len(level)))).values[-1]
        # Levels that differ only by rounding count as equal.
        high = level >= threshold - 1e-9
        means = {name: mean_of(value) for name, value in values.items()}
        means |= {f"high/{name}": mean_of(value[high]) for name, value in values.items()}
        return {name: mean for name, mean in means.items() if mean is not None}


def _experts(subject: Subject) -> list[str]:
    pairs = zip(EXPERTS, (subject.trajectories, subject.fine_tuned), strict=True)
    return [name for name, trajectories in pairs if trajectories]
